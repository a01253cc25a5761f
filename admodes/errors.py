"""Every exception of admodes that is not simply JAX's own class.

Where JAX raises ``TypeError`` or ``ValueError`` for a bad argument, so does admodes; the classes
here name what only this library can meet.
"""


class AdmodesError(Exception):
    """Base class of the library's own exceptions."""


class UnsupportedPrimitiveError(AdmodesError, NotImplementedError):
    """A value that is differentiated reaches a primitive that has no rule in the table."""

    def __init__(self, primitive: str, source: str, reason: str = "has no rule in admodes' table"):
        self.primitive: str = primitive
        self.source: str = source
        super().__init__(
            f"the primitive '{primitive}' {reason} (reached at {source}).\n"
            "Ways out: stop the derivative with jax.lax.stop_gradient, give the function a derivative with "
            "jax.custom_jvp, or register a rule (see admodes.rules)."
        )


class UnsupportedJaxError(AdmodesError, ImportError):
    """The installed version of JAX lacks something inside of it that this library needs."""

    def __init__(self, installed: str, known, missing):
        super().__init__(
            f"admodes cannot run on jax {installed}, which lacks {', '.join(missing)}: install a version that is known "
            f"to work ({', '.join(known)}), as by pip install 'jax=={known[-1]}', or a newer admodes."
        )


class NotLinearError(AdmodesError, TypeError):
    """A function that was promised to be linear is not."""


class UnknownProblemError(AdmodesError, ValueError):
    """A problem name that the collection does not have."""


class ColoringError(AdmodesError, ValueError):
    """A coloring does not determine the matrix that it is for."""


class PlanningError(AdmodesError, ValueError):
    """There is no plan: the function is no single program, or nothing fits the limits."""


class UntraceableError(PlanningError):
    """The function decides on the values of its arguments in Python, so that it is no one program."""


class PatternError(AdmodesError, ValueError):
    """A sparsity pattern does not cover the Jacobian that it is for."""


class StalePlanError(AdmodesError, ValueError):
    """A plan is for another function or other shapes, or its file cannot be read."""


class ArgumentError(AdmodesError, ValueError):
    """A function or an argument on the command line that cannot be read."""


class NonsmoothError(AdmodesError, ValueError):
    """A generalised derivative does not exist: the function jumps (``jump``), or is not defined beside the point."""

    def __init__(self, message: str, jump: bool = False):
        self.jump = jump
        super().__init__(message)


class SideEffectError(AdmodesError, ValueError):
    """Something that must be computed a second time has effects outside the program."""

    def __init__(self, what: str, source: str):
        super().__init__(
            f"reverse mode through this {what} runs steps a second time, but they have side effects (at {source}).\n"
            "Ways out: move the effect (io_callback, say) out of the loop, or use jax.debug.callback, "
            "which may be repeated."
        )


class MemoryLimitError(AdmodesError, ValueError):
    """No schedule fits the memory limit."""
