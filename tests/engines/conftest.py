import pytest

from rsqa.testing import write_random_checkpoint


@pytest.fixture(scope="session")
def random_folder(tmp_path_factory):
    """seed -> folder of a tiny random checkpoint, written once."""
    root, made = tmp_path_factory.mktemp("random"), {}

    def folder(seed):
        if seed not in made:
            made[seed] = write_random_checkpoint(root / f"seed-{seed}", seed)
        return made[seed]

    return folder
