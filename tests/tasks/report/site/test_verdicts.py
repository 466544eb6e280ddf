from neuron_atlas.tasks.report.record import NeuronRecord, read_records
from neuron_atlas.tasks.report.verdict import VERDICTS
from tests.tasks.report.site.reading import neuron, numbers, value


def test_the_table_and_a_neuron_give_the_verdict_of_its_record(made, site):
    index = value(site, "index")
    seen = set()
    for layer in made.layers:
        records = read_records(
            layer, range(64), made.samples.open_layouts, exemplars=1, level=index["level"]
        )
        for number, (explainer, _) in enumerate(index["pairs"]):
            codes = numbers(value(site, f"scores/{number}/{layer.layer}")["verdict"], "u1")
            for place, code in enumerate(codes):
                wanted, shown = (_verdicts(one, explainer) for one in (
                    records[place], neuron(site, layer.layer, place),
                ))  # fmt: skip
                assert shown == wanted
                seen.add(wanted and wanted[0])
                assert [*VERDICTS, None][code] == (wanted and wanted[0])
    assert seen == {*VERDICTS, None}


def _verdicts(one, explainer):
    """Word and numbers of a record's, or of the site's, only score by this explainer."""
    if isinstance(one, NeuronRecord):
        mine = [part for part in one.explanations if part.explanation["explainer"] == explainer]
        found = [part.verdict(score) for part in mine for score in part.scores]
        return next(([verdict.word, verdict.numbers] for verdict in found if verdict), None)
    mine = [part for part in one["explanations"] if part["explainer"] == explainer]
    found = [score.get("verdict") for part in mine for score in part["scores"]]
    return next(filter(None, found), None)
