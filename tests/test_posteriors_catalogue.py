"""The catalogue: every target is its NumPyro model, its constants hold, and posteriordb's gold standard is reached."""

from __future__ import annotations

import json
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

numpyro = pytest.importorskip("numpyro", reason="needs the extra `posteriors`: pip install 'ot-lift[posteriors]'")

import posteriors  # noqa: E402
from ot_lift.numpyro import from_numpyro  # noqa: E402
from ot_lift.posterior import PosteriorMap  # noqa: E402
from ot_lift.posterior_target import Target  # noqa: E402
from posteriors import posteriordb  # noqa: E402
from posteriors.target import Posterior  # noqa: E402


def points(posterior: Posterior, count: int = 100) -> torch.Tensor:
    """Random unconstrained points within the range that NumPyro starts in."""
    generator = torch.Generator().manual_seed(0)
    return 2 * torch.rand(count, posterior.dim, generator=generator, dtype=torch.float64) - 1


def gradient(posterior: Posterior, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    leaf = x.clone().requires_grad_()
    value = posterior.log_density(leaf)
    return value.detach(), torch.autograd.grad(value.sum(), leaf)[0]


def holds_its_model(posterior: Posterior) -> None:
    """Log density with its constants, gradient, names and sites are those of the NumPyro model."""
    target = from_numpyro(posterior.model, *posterior.arguments)
    x = points(posterior)
    value, slope = gradient(posterior, x)
    expected_value, expected_slope = target.value_gradient(x)
    torch.testing.assert_close(value, expected_value, rtol=1e-10, atol=1e-8)
    torch.testing.assert_close(slope, expected_slope, rtol=1e-8, atol=1e-8)
    assert (posterior.dim, posterior.names) == (target.dim, target.names)
    ours, theirs = posterior.constrain(x.numpy()), target.constrain(x.numpy())
    assert ours.keys() <= theirs.keys()
    assert target.sites.keys() <= ours.keys()
    for site, values in ours.items():
        np.testing.assert_allclose(values, theirs[site], rtol=1e-12)


@pytest.mark.parametrize("name", posteriors.names())
def test_the_torch_density_is_the_numpyro_models(name: str) -> None:
    posterior = posteriors.load(name)
    assert posterior.name == name
    assert posterior.citation
    holds_its_model(posterior)


@pytest.mark.parametrize("name", posteriors.names())
def test_curvature_lies_between_the_stated_constants(name: str) -> None:
    posterior = posteriors.load(name)
    x = 3.0 * points(posterior, 4 if posterior.dim > 64 else 20)
    values = torch.linalg.eigvalsh(-Target(posterior).hessian(x))
    tolerance = 1e-9 * float(values.max())
    assert float(values.min()) >= (posterior.strong_log_concavity or 0.0) - tolerance
    if posterior.smoothness is not None:
        assert float(values.max()) <= posterior.smoothness + tolerance


def test_the_catalogue_names_what_it_has() -> None:
    with pytest.raises(ValueError, match=r"expected one of .*linear_diabetes.*, got 'nothing'"):
        posteriors.load("nothing")


def test_a_gaussian_member_is_recovered_exactly() -> None:
    posterior = posteriors.load("linear_diabetes")
    fitted = PosteriorMap(random_state=0).fit(posterior)
    deviation = np.sqrt(np.diag(posterior.covariance))
    np.testing.assert_allclose((fitted.laplace_.mode - posterior.mean) / deviation, 0.0, atol=1e-7)
    covariance = fitted.laplace_.root @ fitted.laplace_.root.T
    units = np.outer(deviation, deviation)
    np.testing.assert_allclose(covariance / units, posterior.covariance / units, atol=1e-7)
    assert fitted.diagnosis_.verdict == "good"


@pytest.mark.slow
def test_reference_draws_are_made_once_and_kept(tmp_path: Path) -> None:
    posterior = posteriors.load("linear_diabetes")
    first = posteriors.reference("linear_diabetes", min_ess=2000.0, folder=tmp_path)
    assert first.r_hat < 1.01
    assert first.bulk_ess > 2000
    (kept,) = tmp_path.glob("*.npz")
    written = kept.stat().st_mtime_ns
    again = posteriors.reference("linear_diabetes", min_ess=2000.0, folder=tmp_path)
    assert kept.stat().st_mtime_ns == written
    assert np.array_equal(again.draws["slopes"], first.draws["slopes"])
    mean, deviation = first.summary()["slopes"]
    truth = np.sqrt(np.diag(posterior.covariance))[1:]
    assert np.abs((mean - posterior.mean[1:]) / truth).max() < 4 / np.sqrt(first.bulk_ess)
    np.testing.assert_allclose(deviation, truth, rtol=0.05)


# --- posteriordb ---------------------------------------------------------------------------------------------------

ENTRY = "mesquite-logmesquite_logvolume"


@pytest.fixture(scope="module")
def checkout() -> Path:
    folder = os.environ.get("POSTERIORDB")
    if folder is None:
        pytest.skip("set POSTERIORDB to the folder of a checkout of posteriordb (github.com/stan-dev/posteriordb)")
    return Path(folder)


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """One posterior in posteriordb's layout, with data and draws of our own."""
    root = tmp_path / "posterior_database"
    rng = np.random.default_rng(0)
    columns = {name: rng.uniform(0.5, 2.0, 12).tolist() for name in ("weight", "diam1", "diam2", "canopy_height")}
    entry = {"name": ENTRY, "data_name": "mesquite", "reference_posterior_name": ENTRY}
    chains = [{label: rng.normal(size=5).tolist() for label in ("beta[1]", "beta[2]", "sigma")} for _ in range(3)]
    record = {"effective_sample_size_bulk": [15.0, 14.0], "r_hat": [1.0, 1.002], "divergent_transitions": [0, 1, 0]}
    files = {
        f"posteriors/{ENTRY}.json": entry,
        "data/data/mesquite.json.zip": {"N": 12, **columns},
        f"reference_posteriors/draws/draws/{ENTRY}.json.zip": chains,
        f"reference_posteriors/draws/info/{ENTRY}.info.json": {"diagnostics": record},
    }
    for name, value in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".zip":
            with zipfile.ZipFile(path, "w") as archive:
                archive.writestr(path.stem, json.dumps(value))
        else:
            path.write_text(json.dumps(value), encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize("inside", [False, True])
def test_an_entry_in_posteriordbs_layout_is_read(small: Path, inside: bool) -> None:
    entry = posteriordb.load(small / "posterior_database" if inside else small, ENTRY)
    assert entry.names == ("beta[0]", "beta[1]", "sigma")
    assert entry.arguments[0].shape == (12, 2)
    reference = entry.reference
    assert {site: draws.shape for site, draws in reference.draws.items()} == {"beta": (3, 5, 2), "sigma": (3, 5)}
    assert (reference.r_hat, reference.bulk_ess, reference.divergences) == (1.002, 14.0, 1)
    assert reference.summary()["beta"][0].shape == (2,)


def test_an_entry_of_our_own_is_its_numpyro_model(small: Path) -> None:
    holds_its_model(posteriordb.load(small, ENTRY))


def test_what_posteriordb_or_we_lack_is_said(small: Path) -> None:
    with pytest.raises(ValueError, match=r"expected one of .*nes2000-nes.*, got 'eight_schools'"):
        posteriordb.load(small, "eight_schools")
    with pytest.raises(FileNotFoundError, match=r"expected nes2000-nes\.json of a posteriordb checkout, got none at"):
        posteriordb.load(small, "nes2000-nes")


@pytest.mark.slow
@pytest.mark.parametrize("name", posteriordb.names())
def test_posteriordbs_regressions_are_their_numpyro_models(checkout: Path, name: str) -> None:
    holds_its_model(posteriordb.load(checkout, name))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ot_lift.posterior_trust.TrustWarning")
@pytest.mark.parametrize("name", [name for name in posteriordb.names() if not name.startswith("wells")])
def test_gold_standard_moments_are_reached(checkout: Path, name: str) -> None:
    entry = posteriordb.load(checkout, name)
    fitted = PosteriorMap(random_state=0).fit(entry)
    sites = entry.constrain(fitted.sample(100_000, random_state=1))
    for site, (mean, deviation) in entry.reference.summary().items():
        assert np.abs((sites[site].mean(0) - mean) / deviation).max() < 0.05
        np.testing.assert_allclose(sites[site].std(0), deviation, rtol=0.05)
