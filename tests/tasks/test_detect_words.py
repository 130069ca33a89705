from __future__ import annotations

from rsqa.tasks.detect import all_of, is_there, the_only


def test_objects_are_asked_for_in_whole_words():
    assert is_there("airplane") == "Is there an airplane?"
    assert is_there("storage tank") == "Is there a storage tank?"
    assert the_only("ship") == "the ship"
    assert (all_of("ship", "many"), all_of("ship", "one")) == ("every ship", "the ship")
