// For the search of a site that is opened from the disk: browsers allow such pages no worker, so what would run in one
// runs in a hidden frame. mkdocs-material's plugin `offline` loads a script like this one from elsewhere if the site has none.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super()
      const frame = document.createElement("iframe")
      frame.hidden = true
      frame.srcdoc = `<script src="${new URL(url, document.baseURI)}"><\/script>`
      this.inside = new Promise(ready => frame.addEventListener("load", () => ready(frame.contentWindow)))
      this.inside.then(inside => {
        inside.postMessage = data => this.dispatchEvent(new MessageEvent("message", { data }))
      })
      document.body.append(frame)
    }

    postMessage(data) {
      this.inside.then(inside => inside.dispatchEvent(new MessageEvent("message", { data })))
    }
  }
}
