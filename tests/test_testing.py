import numpy as np
import pytest

from rsqa.engines.registry import load_engine
from rsqa.tasks.parse import answers
from rsqa.testing import EchoEngine, EngineContract


class TestEcho(EngineContract):
    @pytest.fixture
    def engine(self):
        return EchoEngine()

    def test_it_counts_and_logs_its_calls(self, engine, tmp_path, monkeypatch):
        monkeypatch.setenv("RSQA_FAKE_LOG", str(tmp_path / "calls"))
        self.ask(engine, self.chips(7), batch=3)
        self.ask(engine, self.chips(2), batch=3)
        assert engine.calls == [3, 3, 1, 2]
        assert (tmp_path / "calls").read_text() == "3\n3\n1\n2\n"

    def test_its_replies_are_answers(self, engine):
        replies = self.ask(engine, self.chips(40))
        for question, reply in zip(self.questions, replies, strict=True):
            said = answers(question, reply, mass_floor=0.05)
            assert set(said.status) == {"ok"}
            assert len(set(said.value)) == (len(question.options) if question.closed else 40)
            if question.closed:
                np.testing.assert_allclose(said.option_mass, 0.95, rtol=1e-5)


def test_it_is_found_by_its_name():
    assert isinstance(load_engine("rsqa.testing:EchoEngine", "cpu"), EchoEngine)
