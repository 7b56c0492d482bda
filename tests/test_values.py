"""What backends say of an op, in one cell and out of it again."""

from qnb.values import BACKENDS, join_reasons, reason_of

DET = "Operators of type `Det` are not supported by QNN EP. Det node `d` will not be assigned; a second; part: of it"


def test_what_several_say_alike_stands_once():
    assert join_reasons({"htp": DET, "gpu": "not known", "cpu": DET}) == f"htp, cpu: {DET}; gpu: not known"
    assert join_reasons({"cpu": DET}) == f"cpu: {DET}"
    assert join_reasons({}) == ""


def test_each_reads_its_own_again():
    for said in ({"htp": DET, "gpu": "x", "cpu": DET}, {"htp": "x", "cpu": DET}, {"gpu": "gpu is not asked here"}, {}):
        joined = join_reasons(said)
        assert {backend: reason_of(backend, joined) for backend in BACKENDS} == {b: said.get(b, "") for b in BACKENDS}
    assert reason_of("htp", "folded into a neighbour") == ""
