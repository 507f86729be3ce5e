"""Where a network is cut: every site once, every operation once, and nothing used that is not there."""

from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.batchnorm.plan import Dataflow, Operation, Stage, plan

NONE = frozenset()


def op(name, inputs, *statistics):
    return Operation(tuple(inputs), (name,), frozenset(statistics))


def site(number, name, inputs):
    """A site as two operations: reading its statistics, which needs no image, and applying them."""
    return [op(f"{name}/read", (), number), op(name, (inputs, f"{name}/read"))]


def test_a_chain_of_sites_is_cut_at_each():
    flow = Dataflow(
        [op("a", ["x"]), *site(0, "A", "a"), op("b", ["A"]), *site(1, "B", "b"), op("out", ["B"])],
        ("x",),
        [("a",), ("b",)],
    )
    assert plan(flow) == (
        Stage((0,), (), ("x",), ("a",)),
        Stage((1,), (), ("a",), ("b",)),
    )


def test_sites_that_do_not_depend_on_each_other_share_a_stage():
    flow = Dataflow(
        [
            op("a", ["x"]),
            op("b", ["x"]),
            *site(0, "A", "a"),
            *site(1, "B", "b"),
            op("sum", ["A", "B"]),
            *site(2, "C", "sum"),
        ],
        ("x",),
        [("a",), ("b",), ("sum",)],
    )
    first, second = plan(flow)
    assert (first.sites, second.sites) == ((0, 1), (2,))
    assert set(first.keeps) == {"a", "b"}


def test_a_residual_join_keeps_the_shortcut_across_the_cuts():
    flow = Dataflow(
        [
            op("a", ["x"]),
            *site(0, "A", "a"),
            op("b", ["A"]),
            *site(1, "B", "b"),
            op("join", ["A", "B"]),
            *site(2, "C", "join"),
        ],
        ("x",),
        [("a",), ("b",), ("join",)],
    )
    assert set(plan(flow)[1].keeps) == {"A", "b"}


def test_a_shared_site_waits_for_all_that_its_calls_wait_for():
    flow = Dataflow(
        [
            op("a", ["x"]),
            *site(0, "A", "a"),
            op("b1", ["A"]),
            op("b2", ["x"]),
            op("read", (), 1),
            op("B1", ["b1", "read"]),
            op("B2", ["b2", "read"]),
            op("sum", ["B1", "B2"]),
            *site(2, "C", "sum"),
        ],
        ("x",),
        [("a",), ("b1", "b2"), ("sum",)],
    )
    assert [stage.sites for stage in plan(flow)] == [(0,), (1,), (2,)]


def test_a_site_that_feeds_itself_is_a_loop_with_what_lies_between():
    flow = Dataflow(
        [
            op("a", ["x"]),
            op("read", (), 0),
            op("A1", ["a", "read"]),
            *site(1, "B", "A1"),
            op("A2", ["B", "read"]),
            *site(2, "C", "A2"),
        ],
        ("x",),
        [("a", "B"), ("A1",), ("A2",)],
    )
    first, second = plan(flow)
    assert (first.sites, first.loops) == ((), ((0, 1),))
    assert second.sites == (2,)


@st.composite
def networks(draw):
    """Random networks: every operation reads one to three earlier tensors, some are sites, some sites are shared."""
    tensors, operations, measured = ["x"], [], []
    for number in range(draw(st.integers(1, 14))):
        inputs = draw(st.lists(st.sampled_from(tensors), min_size=1, max_size=3, unique=True))
        name = f"t{number}"
        if draw(st.booleans()):
            shared = measured and draw(st.integers(0, 3)) == 0
            which = draw(st.integers(0, len(measured) - 1)) if shared else len(measured)
            if shared:
                measured[which] += (inputs[0],)
            else:
                measured.append((inputs[0],))
            operations += [op(f"{name}/read", (), which), op(name, (*inputs, f"{name}/read"))]
        else:
            operations.append(op(name, inputs))
        tensors.append(name)
    return Dataflow(operations, ("x",), measured)


@given(networks())
@settings(max_examples=300)
def test_the_plan_of_any_network_can_be_carried_out(flow):
    known, kept = set(), {"x"}
    for stage in plan(flow):
        assert set(stage.feeds) == kept
        here = [s for loop in stage.loops for s in loop]
        # a site is measured from what is kept, with the statistics of earlier stages alone
        for number in stage.sites:
            assert available(flow, kept, known).issuperset(flow.measured[number])
        reachable = available(flow, kept, known)
        assert reachable.issuperset(stage.keeps)
        kept = set(stage.keeps)
        known |= {*stage.sites}
        # the sites of a loop are measured from the cut behind, with their own statistics
        for number in here:
            assert available(flow, kept, known | set(here)).issuperset(flow.measured[number])
        known |= set(here)
    assert known == set(range(len(flow.measured)))


@given(networks())
@settings(max_examples=300)
def test_every_site_is_measured_once_and_a_loop_is_one_that_needs_itself(flow):
    stages = plan(flow)
    alone = [number for stage in stages for number in stage.sites]
    looping = [number for stage in stages for loop in stage.loops for number in loop]
    assert sorted(alone + looping) == list(range(len(flow.measured)))
    assert {n for n in range(len(flow.measured)) if needs(flow, n, n)} == set(looping)


def available(flow, fed, known):
    """What can be computed from the fed tensors when these sites have their statistics."""
    have = set(fed)
    for operation in flow.operations:
        if operation.statistics <= known and set(operation.inputs) <= have:
            have.update(operation.outputs)
    return have


def needs(flow, site, wanted, seen=None):
    """Whether the statistics of `site` depend on those of `wanted`, by walking back."""
    seen = set() if seen is None else seen
    producer = {t: operation for operation in flow.operations for t in operation.outputs}
    todo = list(flow.measured[site])
    walked = set()
    while todo:
        tensor = todo.pop()
        if tensor in walked or tensor not in producer:
            continue
        walked.add(tensor)
        operation = producer[tensor]
        for other in operation.statistics:
            if other == wanted:
                return True
            if other not in seen:
                seen.add(other)
                if needs(flow, other, wanted, seen):
                    return True
        todo += operation.inputs
    return False
