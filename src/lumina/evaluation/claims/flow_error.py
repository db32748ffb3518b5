"""Claim: a step of Euler's errs most near noise, next most near data, least between."""

from collections.abc import Iterator, Sequence
from statistics import fmean

import torch
from jaxtyping import Float
from torch import Tensor

from lumina.evaluation.claims.claim import Claim, Findings, Lab, Table, Threshold
from lumina.evaluation.claims.mini import GUIDANCE, NAME, load_mini
from lumina.evaluation.claims.plots import plot_lines
from lumina.flow.solvers import SOLVERS, integrate
from lumina.flow.times import uniform_times
from lumina.types import Velocity

STEPS = 20
AT_AN_END = 1.5  # times the middle: what counts as larger at an end
FINE = 4  # steps of RK4 in each of them
PROMPTS, FIRST_SEED = 16, 30000
LAW_SAMPLES, LAW_WIDTH, LAW_SEED = 512, 64, 0


def local_errors(
    velocity: Velocity, x: Float[Tensor, "b *grid"], *, steps: int = STEPS, fine: int = FINE
) -> list[float]:
    """Error of one step of Euler's from each point of the exact way, in the units of the data.

    Args:
        velocity: What is followed.
        x: Noise, where it begins.
        steps: Equal steps from noise to data.
        fine: Steps of RK4 in each, which stand for the exact way.
    """
    times = uniform_times(steps).to(x.dtype)
    errors = []
    for start, end in zip(times[:-1], times[1:], strict=True):
        guess = x + (end - start) * velocity(x, start)
        between = start + (end - start) * torch.linspace(0, 1, fine + 1, dtype=x.dtype)
        x = integrate(velocity, x, between, solver=SOLVERS["rk4"])[-1]
        errors.append((guess - x).square().mean().sqrt().item())
    return errors


def shape_of(errors: Sequence[float]) -> dict[str, float]:
    """How much larger errors are at the ends than in the middle half.

    Returns:
        `noise` and `data`: the mean of the first and of the last tenth, divided by the mean of
        the middle half; `noise_to_data`: of the first by the last.
    """
    tenth, quarter = max(1, len(errors) // 10), len(errors) // 4
    middle = fmean(errors[quarter : len(errors) - quarter])
    noise, data = fmean(errors[:tenth]), fmean(errors[-tenth:])
    return {"noise": noise / middle, "data": data / middle, "noise_to_data": noise / data}


def gaussian_velocity(variances: Float[Tensor, " d"]) -> Velocity:
    """Exact velocity toward a normal law with these variances and mean 0."""

    def velocity(x: Float[Tensor, "b d"], t: Float[Tensor, ""]) -> Float[Tensor, "b d"]:
        return x * (t * variances - (1 - t)) / (t**2 * variances + (1 - t) ** 2)

    return velocity


def mixture_velocity(centers: Float[Tensor, "modes d"], spread: float) -> Velocity:
    """Exact velocity toward equal normal laws of one spread around centers.

    At time t the point is `t * data + (1 - t) * noise`; the velocity is what is expected of
    `data - noise` there.
    """

    def velocity(x: Float[Tensor, "b d"], t: Float[Tensor, ""]) -> Float[Tensor, "b d"]:
        variance = t**2 * spread**2 + (1 - t) ** 2
        distances = torch.cdist(x, t * centers).square()
        weights = (-distances / (2 * variance)).softmax(-1)
        slope = (t * spread**2 - (1 - t)) / variance
        return weights @ centers + slope * (x - t * (weights @ centers))

    return velocity


def _laws() -> Iterator[tuple[str, Velocity]]:
    generator = torch.Generator().manual_seed(LAW_SEED)
    powers = torch.arange(1, LAW_WIDTH + 1, dtype=torch.float64) ** -2.0
    yield "normal law, power-law spectrum", gaussian_velocity(powers / powers.mean())
    centers = torch.randn(32, LAW_WIDTH, dtype=torch.float64, generator=generator)
    for spread in (0.05, 0.3):
        yield f"32 modes of spread {spread}", mixture_velocity(centers, spread)


def _run(lab: Lab) -> Findings:
    laws = {name: lab.piece(_key(name), lambda v=v: _law_errors(v)) for name, v in _laws()}
    models = {
        f"lumina-mini, guidance {guidance:g}": lab.piece(
            f"mini-{guidance:g}", lambda guidance=guidance: _mini_errors(guidance, fine=FINE)
        )
        for guidance in (1.0, GUIDANCE)
    }
    coarse = lab.piece("mini-check", lambda: _mini_errors(GUIDANCE, fine=FINE // 2))
    exact = models[f"lumina-mini, guidance {GUIDANCE:g}"]
    accuracy = max(abs(a - b) / b for a, b in zip(coarse, exact, strict=True))
    return _tell_findings(lab, models | laws, accuracy)


def _tell_findings(lab: Lab, lines: dict[str, list[float]], accuracy: float) -> Findings:
    shapes = {name: shape_of(errors) for name, errors in lines.items()}
    guided = shapes[f"lumina-mini, guidance {GUIDANCE:g}"]
    plain = shapes["lumina-mini, guidance 1"]
    values = {
        "guided_noise": guided["noise"],
        "guided_data": guided["data"],
        "guided_noise_to_data": guided["noise_to_data"],
        "plain_noise": plain["noise"],
        "plain_data": plain["data"],
        "u_shaped": float(sum(min(s["noise"], s["data"]) >= AT_AN_END for s in shapes.values())),
        "reference_accuracy": accuracy,
    }
    middle = {name: [(i + 0.5) / STEPS for i in range(len(e))] for name, e in lines.items()}
    plot = plot_lines(
        {name: list(zip(middle[name], e, strict=True)) for name, e in lines.items()},
        title=f"One of {STEPS} Euler steps",
        x_label="time, from noise (0) to data (1)",
        y_label="root mean square error",
        y_log=True,
    )
    rows = [
        [name, f"{errors[0]:.2g}", f"{min(errors):.2g}", f"{errors[-1]:.2g}"]
        + [f"{shapes[name][key]:.2f}" for key in ("noise", "data", "noise_to_data")]
        for name, errors in lines.items()
    ]
    header = ["law", "first step", "smallest", "last step"]
    header += ["noise / middle", "data / middle", "noise / data"]
    return Findings(
        values,
        _words(shapes),
        [Table("Error of one step, and ends against the middle half", header, rows)],
        [lab.picture("errors", plot, "Error of one Euler step from each point of the exact way.")],
        {
            "steps": STEPS,
            "prompts": PROMPTS,
            "seeds": f"{FIRST_SEED} to {FIRST_SEED + PROMPTS - 1}",
            "exact way": f"RK4, {FINE} steps in each",
            "change with half as many": f"{100 * accuracy:.2g} % at most",
        },
    )


def _words(shapes: dict[str, dict[str, float]]) -> list[str]:
    u_shaped = [name for name, s in shapes.items() if min(s["noise"], s["data"]) >= AT_AN_END]
    guided, plain = (shapes[f"lumina-mini, guidance {g:g}"] for g in (GUIDANCE, 1.0))
    ordered = "larger" if guided["noise_to_data"] > 1 else "not larger"
    peak = (
        "there is a peak near noise too"
        if plain["noise"] >= AT_AN_END
        else "there is no peak near noise"
    )
    return [
        f"On lumina-mini as it is used, the error near noise is {guided['noise']:.2f} times that of"
        f" the middle half, near data {guided['data']:.2f} times; it is {ordered} near noise than"
        f" near data ({guided['noise_to_data']:.2f} times).",
        f"Without guidance {peak}: {plain['noise']:.2f} times the middle near noise,"
        f" {plain['data']:.2f} times near data.",
        f"Both ends are at least {AT_AN_END:g} times the middle in {len(u_shaped)} of"
        f" {len(shapes)} cases" + (f": {'; '.join(u_shaped)}." if u_shaped else "."),
    ]


def _law_errors(velocity: Velocity) -> list[float]:
    generator = torch.Generator().manual_seed(LAW_SEED + 1)
    x = torch.randn(LAW_SAMPLES, LAW_WIDTH, dtype=torch.float64, generator=generator)
    return local_errors(velocity, x, fine=50)


def _mini_errors(guidance: float, *, fine: int) -> list[float]:
    mini = load_mini()
    prompts = mini.prompts(mini.briefs("flow error", PROMPTS))
    return local_errors(prompts.velocity(guidance=guidance), prompts.noise(FIRST_SEED), fine=fine)


def _key(name: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in name)


FLOW_ERROR = Claim(
    name="flow-error",
    title="Where steps of the flow err",
    statement="The error of a step of Euler's along the flow is largest near noise, second largest"
    " near data and smallest between, so that schedules should take small steps at both ends.",
    source="Lumina-Next, arXiv:2406.18583, section 2.4",
    metric=f"The exact error of each of {STEPS} equal steps, begun on the exact way: on lumina-mini"
    " latents with guidance as in use and without any, in float32 against fine RK4; and on laws"
    " whose velocity is known. Ends are the mean of the first and the last tenth, the middle is"
    " the mean of the middle half.",
    thresholds=(
        Threshold(
            "guided_noise", "lumina-mini, guided: error near noise / middle", least=AT_AN_END
        ),
        Threshold("guided_data", "lumina-mini, guided: error near data / middle", least=AT_AN_END),
        Threshold("guided_noise_to_data", "lumina-mini, guided: near noise / near data", least=1),
    ),
    run=_run,
    minutes=10,
    model=NAME,
)
