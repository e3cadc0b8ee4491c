from tune_cure.data import splits
from tune_cure.data.config import DataSpec
from tune_cure.evaluation.config import EvaluationConfig
from tune_cure.training.config import ModelConfig, TrainingConfig
from tune_cure.training.trainer import Trainer


def test_catastrophic_overfitting_is_detected_in_the_epoch_in_which_it_happens() -> None:
    """FGSM from the image itself with a large epsilon: soon single steps break nothing, and PGD breaks all."""
    run = Trainer(
        TrainingConfig.model_validate(
            {"epochs": 16, "batch_size": 64, "epsilon": 0.25, "alpha": 1.0, "init": "zero", "lambda": 0}
            | {"lr_schedule": "cyclic", "lr_max": 0.05}
        ),
        splits.load(DataSpec(dataset="digits", validation=300, image_size=16)),
        model=ModelConfig(name="preact_resnet10", width=16),
        evaluation=EvaluationConfig(epsilon=0.25, examples=300),
    )
    for _ in range(16):
        run.train_epoch()
        metrics = run.evaluate()
        has_happened = metrics["fgsm_accuracy"] > 0.6 and metrics["pgd_accuracy"] < 0.05
        if has_happened or metrics["catastrophic_overfitting"]:
            break
    assert metrics["catastrophic_overfitting"]
    assert metrics["pgd_accuracy"] < metrics["fgsm_accuracy"] / 2
