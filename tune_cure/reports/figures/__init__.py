"""Figures: built with plotly for the pages, and drawn again by matplotlib for papers."""
