"""A table as people have it: hours of weather at three airports, with dates, categories, angles, gaps and mostly no rain.

    python examples/mixed_table.py [--out out] [--quick]

One density of all columns is fitted to nine tenths of the rows, and draws are set beside the rest: where the wind blows from,
temperature and dew point, how often it rains, and the course of the year. Then one hour is asked for in which somebody
recorded a wind of 1,048 miles an hour. Writes mixed_table.png and weather.flows.
"""

import argparse
import warnings
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import polars as pl

import flows
from flows import tables

DATA = Path(__file__).parent / "data" / "weather.csv"
ROWS, DRAWN = "#888888", "#2166ac"
SPEED = "wind_speed_mph"


def read_weather():
    """The table, and what its columns hold: wind directions are on a circle, which no guess can know."""
    frame = pl.read_csv(DATA, try_parse_dates=True, infer_schema_length=None)
    schema = tables.infer_schema(frame).replace({"wind_direction": tables.Circular(360, step=10)})
    return frame, schema


def picture(path, rows, drawn):
    figure = plt.figure(figsize=(13.5, 4.2), layout="constrained")
    rose = figure.add_subplot(1, 4, 1, projection="polar")
    rose.set(theta_zero_location="N", theta_direction=-1, yticklabels=[], title="Wind from")
    scatter, rain, year = (figure.add_subplot(1, 4, 2 + i) for i in range(3))
    for frame, color, label, width in ((rows, ROWS, "held out", 2.5), (drawn, DRAWN, "drawn", 1.5)):
        windy = frame.filter(pl.col(SPEED) > 0)["wind_direction"].to_numpy()
        share, edges = np.histogram(windy % 360, np.arange(-5, 360, 10))
        angles = np.deg2rad(np.append(edges[:-1] + 5, 0))
        rose.plot(angles, np.append(share, share[0]) / len(windy), color=color, lw=width, label=label)
        few = frame.sample(1_000, seed=0)
        scatter.plot(few["temperature_f"], few["dew_point_f"], ".", color=color, ms=2, alpha=0.6)
        wet = np.sort(frame["rain_in"].to_numpy())
        rain.plot(wet, 1 - np.arange(len(wet)) / len(wet), color=color, lw=width)
        month = frame.group_by(pl.col("time").dt.month()).agg(
            pl.col("temperature_f").quantile(q).alias(f"{q}") for q in (0.1, 0.5, 0.9)
        )
        month = month.sort("time")
        for q, style in (("0.1", ":"), ("0.5", "-"), ("0.9", ":")):
            year.plot(month["time"], month[q], style, color=color, lw=width)
    rose.legend(loc="lower left", bbox_to_anchor=(-0.25, -0.2), frameon=False)
    scatter.set(title="Temperature and dew point", xlabel="temperature [F]", ylabel="dew point [F]")
    rain.set(
        title="Share of hours with more rain", xlabel="rain in the hour [inches]", yscale="log", xlim=(0, 0.6), ylim=(1e-3, 0.2)
    )
    year.set(title="Tenth, half and nine tenths", xlabel="month", ylabel="temperature [F]", xticks=range(1, 13, 2))
    for axis in (scatter, rain, year):
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("out"))
    parser.add_argument("--quick", action="store_true", help="two epochs of a small flow, to see that all runs")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    flows.keep_programs()

    frame, schema = read_weather()
    print(schema)
    complete = frame.drop_nulls()
    odd = complete[SPEED] > 200
    order = np.random.default_rng(0).permutation(int((~odd).sum()))
    rows = complete.filter(~odd)[order]
    train, test = rows[: -len(rows) // 10], rows[-len(rows) // 10 :]
    flow = flows.Flow(flows.NSF(1, hidden=(16,), num_bins=4) if options.quick else flows.NSF())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of single rows far out
        result = tables.fit(0, train, schema, model=flow, max_epochs=2 if options.quick else None)
    print(result.result)
    scores = result.log_prob(test, draws=16)
    print(
        f"Hours held out: {scores.mean():.2f} +- {scores.std() / len(scores) ** 0.5:.2f} nats, of the cells of rounded values"
    )
    picture(options.out / "mixed_table.png", test, result.draw(1, 20_000))

    error = complete.filter(odd)
    score, usual = result.log_prob(error)[0], result.anomaly(error)[0]
    print(f"The wind of {error[SPEED][0]:,.0f} miles an hour that somebody recorded: {score:.2f} nats")
    print(f"Of hours like those fitted, at most {usual:.2%} are as unusual")
    result.save(options.out / "weather.flows")
    print("wrote", options.out / "mixed_table.png", options.out / "weather.flows")


if __name__ == "__main__":
    main()
