"""What admodes assumes of JAX's internals; a failure here names what an upgrade of JAX has changed."""

import jax
import jax.numpy as jnp
import pytest
from jax import lax

from admodes.program import jax_compat as jc

GROUPS = {"num_consts", "num_carry"} if jc.contact("pack_trees") is None else {"ft_in", "ft_out"}
PARAMS = {
    "scan": (
        lambda x: lax.scan(lambda c, u: (c + u, c), x, jnp.ones(3)),
        {"jaxpr", "length", "reverse", "unroll", *GROUPS},
    ),
    "while": (
        lambda x: lax.while_loop(lambda c: c < 3, lambda c: c + 1, x),
        {"cond_jaxpr", "body_jaxpr", "cond_nconsts", "body_nconsts"},
    ),
    "cond": (lambda x: lax.cond(x > 0, jnp.sin, jnp.cos, x), {"branches"}),
    "remat2": (lambda x: jax.checkpoint(jnp.sin)(x), {"jaxpr", "prevent_cse", "differentiated", "policy"}),
    "custom_jvp_call": (jax.nn.relu, {"call_jaxpr", "jvp_jaxpr_fun", "num_consts", "symbolic_zeros"}),
}


@pytest.mark.parametrize("name", PARAMS)
def test_parameters_of_higher_order_primitives(name):
    fun, expected = PARAMS[name]
    equations = jax.make_jaxpr(lambda x: fun(x))(1.0).eqns
    equations = [
        e for outer in equations for e in (outer.params["jaxpr"].eqns if outer.primitive is jc.jit_p else [outer])
    ]
    (equation,) = (e for e in equations if e.primitive.name == name)
    assert set(equation.params) == expected


def test_higher_order_primitives_by_name():
    found = {p.name for p in (jc.scan_p, jc.while_p, jc.cond_p, jc.remat_p, jc.jit_p, jc.shard_map_p)}
    assert found == {"scan", "while", "cond", "remat2", "jit", "shard_map"}


def test_only_debugging_output_may_be_repeated():
    effect = lambda callback: jax.make_jaxpr(lambda x: callback(lambda x: None, x))(1.0)
    assert not jc.has_side_effects(effect(jax.debug.callback))
    assert jc.has_side_effects(effect(lambda f, x: jax.experimental.io_callback(f, None, x, ordered=True)))


def test_types_of_stacks():
    aval = jc.typeof(jnp.ones(3))
    assert jc.stacked(aval, 5).shape == (5, 3)
    assert jc.same_type(jc.unstacked(jc.stacked(aval, 5)), aval)


def test_temporary_bytes_are_those_of_the_compiled_program():
    lowered = jax.jit(lambda x: jnp.sum(jnp.sort(x))).lower(jnp.ones(1000, jnp.float32))
    assert jc.temporary_bytes(lowered) >= 4000


def test_a_run_of_one_process_has_no_store():
    assert jc.store() is None


def test_types_with_their_devices():
    mesh = jax.make_mesh((2, 2), ("i", "j"), axis_types=(jax.sharding.AxisType.Explicit,) * 2)
    spread = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("i"))
    x = jax.device_put(jnp.arange(8.0), spread)
    assert jc.placed(x).sharding == spread
    assert jc.placed(jc.typeof(x)).sharding.is_equivalent_to(spread, 1)
    assert jc.placed(jnp.ones(3)).sharding is None
    assert jc.mesh_of(jc.typeof(x))
    assert not jc.mesh_of(jc.typeof(jnp.ones(3)))
    with jax.set_mesh(mesh):
        split = jc.split_batch(jnp.ones((4, 8)), mesh, [jc.typeof(x)])  # over j: the type of x uses i
        assert jc.typeof(split).sharding.spec == jax.sharding.PartitionSpec("j", None)
        assert jc.typeof(jc.whole(split)).sharding.spec == jax.sharding.PartitionSpec(None, None)
        with jc.without_mesh():
            assert jax.sharding.get_abstract_mesh().empty


def test_trace_hooks_that_we_override_exist():
    for hook in ("process_primitive", "process_custom_jvp_call", "process_custom_vjp_call"):
        assert hasattr(jc.Trace, hook)
    assert hasattr(jc.Trace, "process_call") == (jax.__version_info__ < (0, 11))  # then a call became a primitive
    assert hasattr(jc.Tracer, "to_concrete_value")


def test_tangent_types():
    assert jc.tangent_aval(jc.typeof(jnp.float32(1))).dtype == jnp.float32
    assert jc.tangent_aval(jc.typeof(jnp.int32(1))).dtype == jc.float0
    assert jc.zeros(jc.typeof(jnp.arange(3))).dtype == jc.float0
    assert not jc.is_differentiable(jc.typeof(jax.random.key(0)))


def test_staging_is_recognised():
    seen = []
    jax.jit(lambda x: seen.append(jc.is_staging()) or x)(1.0)
    jax.vmap(lambda x: seen.append(jc.is_staging()) or x)(jnp.ones(2))
    assert seen == [True, False]
    assert not jc.is_staging()


@pytest.mark.parametrize(
    "transform",
    [
        jax.jit,
        jax.vmap,
        lambda f: jax.vmap(f, axis_name="i"),
        lambda f: jax.jit(jax.vmap(f)),
        lambda f: lambda x: jax.jvp(f, (x,), (x,)),
        lambda f: lambda x: jax.vjp(f, x),
        jax.make_jaxpr,
    ],
)
def test_every_transformation_under_way_is_recognised(transform):
    seen = []
    transform(lambda x: seen.append(jc.is_tracing()) or 2 * x)(jnp.ones(2))
    assert all(seen)
    assert not jc.is_tracing()


def test_jaxpr_surgery():
    closed = jc.trace_flat(lambda a, b: [jnp.sin(a), b, jnp.sin(a) * b], [jc.typeof(1.0)] * 2, "test")
    assert jc.output_sources(closed)[1] == ("input", 1)
    constants = jc.output_sources(jc.trace_flat(lambda: [2.0, jnp.float32(3.0), True], [], "test"))
    assert constants == [("literal", 2.0), ("literal", 3.0), ("literal", True)]
    assert [jc.typeof(value).weak_type for _, value in constants] == [True, False, False]
    assert all(hasattr(value, "dtype") for _, value in constants)
    assert jc.depends_on(closed, [False, True]) == [False, True, True]
    assert len(jc.select_outputs(closed, [1]).eqns) == 0
    swapped = jc.permute_inputs(closed, (1, 0))
    assert jc.jaxpr_as_fun(swapped)(2.0, 0.0)[1] == 2.0


def test_parts_of_loops_and_branches():
    def loops(x, w):
        c, ys = lax.scan(
            lambda c, u: ((c[0] * w, c[1] + u[0]), (u[1] + c[0], w * c[0])), (x, 1), (jnp.ones(3, int), x * jnp.ones(3))
        )
        return lax.while_loop(lambda c: c[0] < 3 * x, lambda c: (c[0] * w, c[1] + 1), (x, c[1])), ys

    equations = jc.inner(jax.make_jaxpr(loops)(2.0, 3.0)).eqns
    (scan,) = (e for e in equations if e.primitive is jc.scan_p)
    loop, body = jc.scan_parts(scan.params)
    assert (loop.n_consts, loop.n_carry, len(loop.split(scan.invars)[2])) == (1, 2, 2)
    assert len(body.in_avals) == 5
    carry, ys = loop.bind(body, [3.0], [2.0, 1], [jnp.ones(3, int), jnp.ones(3)])
    assert [float(carry[0]), int(carry[1])] == [2.0 * 3**3, 4]
    assert [y.tolist() for y in ys] == [[3.0, 7.0, 19.0], [6.0, 18.0, 54.0]]
    (while_,) = (e for e in equations if e.primitive is jc.while_p)
    loop = jc.while_parts(while_.params)
    assert (loop.n_cond, loop.n_body, len(loop.split(while_.invars)[2])) == (1, 1, 2)
    assert set(loop.params) == set(while_.params)
    assert [float(x) for x in loop.bind([1.5], [3.0], [2.0, 7])] == [6.0, 8.0]


def test_a_parameter_comes_as_a_copy_so_that_what_is_cached_with_it_may_hold_it():
    (equation,) = jc.inner(jax.make_jaxpr(jax.checkpoint(jnp.sin))(1.0)).eqns
    jaxpr = equation.params["jaxpr"]
    assert jc.close_jaxpr(jaxpr) is not jaxpr
    assert jc.close_jaxpr(jaxpr) is jc.close_jaxpr(jaxpr)
