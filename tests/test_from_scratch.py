"""admodes does not lean on JAX's differentiation: with JAX's rule tables emptied it still works."""

import subprocess
import sys

PROGRAM = """
import jax, jax.numpy as jnp, numpy as np
jax.config.update("jax_enable_x64", True)
import admodes
from jax import lax
from jax._src.interpreters import ad

for table in ("primitive_jvps", "primitive_transposes", "fancy_transposes", "primitive_linearizations"):
    getattr(ad, table, {}).clear()
def forbidden(*args, **kwargs):
    raise AssertionError("JAX's differentiation was called")
for name in ("jvp", "vjp", "grad", "value_and_grad", "linearize", "linear_transpose", "jacfwd", "jacrev", "hessian"):
    setattr(jax, name, forbidden)
for name in ("jvp", "linearize", "backward_pass", "jvp_jaxpr", "linearize_jaxpr"):
    setattr(ad, name, forbidden)

W = jnp.eye(3) * 4 + 0.1

@jax.custom_vjp
def halved(x):
    return x / 2
halved.defvjp(lambda x: (halved(x), None), lambda _, g: (g / 2,))

def f(x):
    h, ys = lax.scan(lambda c, u: (jnp.tanh(W @ c) * u, jnp.sum(c)), x, jnp.ones((4, 3)))
    h = jax.checkpoint(lambda h: jax.nn.softmax(jax.nn.relu(h) + x))(h)
    h = lax.cond(h[0] > 0, lambda h: jax.scipy.linalg.solve_triangular(W, h), jnp.sin, h)
    return jnp.sum(jnp.sort(halved(h)) ** 2) + jnp.sum(ys) + jnp.linalg.norm(jnp.linalg.cholesky(W * x[0]))

x = jnp.array([0.4, 0.7, 1.1])
for run in (lambda g: g, jax.jit):
    gradient = run(admodes.grad(f))(x)
    for i in range(3):
        h = 1e-6
        e = jnp.zeros(3).at[i].set(h)
        difference = (f(x + e) - f(x - e)) / (2 * h)
        np.testing.assert_allclose(gradient[i], difference, rtol=1e-6)
        np.testing.assert_allclose(run(lambda x, t: admodes.jvp(f, (x,), (t,))[1])(x, e / h), difference, rtol=1e-6)
H = admodes.hessian(f)(x)
np.testing.assert_allclose(H, H.T, rtol=1e-8, atol=1e-10)
print("done")
"""


def test_with_jax_rule_tables_emptied():
    run = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=300)
    assert run.stdout.strip() == "done", run.stderr[-2000:]
