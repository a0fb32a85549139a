"""A table as people have it: hours of weather at three airports, with dates, categories, angles, gaps and mostly no rain.

    python examples/mixed_table.py [--out out] [--quick]

One density of all columns is fitted to nine tenths of the rows, and draws are set beside the rest: where the wind blows from,
temperature and dew point, how often it rains, and the course of the year. Then one hour is asked for in which somebody
recorded a wind of 1,048 miles an hour. Writes mixed_table.png and weather.flows.

Pictures:
    mixed_table.png: Hours of weather that were held out, and hours drawn, in four panels: where the wind comes from, dew point
        by temperature, how much it rains, and temperature by month. The two agree in each.
"""

import argparse
import warnings
from pathlib import Path

import numpy as np
import polars as pl
from style import BLUE, ORANGE, plt

import flows
from flows import tables

DATA = Path(__file__).parent / "data" / "weather.csv"
SPEED = "wind_speed_mph"


def read_weather():
    """The table, and what its columns hold: wind directions are on a circle, which no guess can know."""
    frame = pl.read_csv(DATA, try_parse_dates=True, infer_schema_length=None)
    schema = tables.infer_schema(frame).replace({"wind_direction": tables.Circular(360, step=10)})
    return frame, schema


def picture(path, rows, drawn):
    figure = plt.figure(figsize=(9, 7.2))
    rose = figure.add_subplot(2, 2, 1, projection="polar")
    rose.set(theta_zero_location="N", theta_direction=-1, yticklabels=[], title="Where the wind comes from")
    rose.set_xticks(np.deg2rad(range(0, 360, 45)), ("N", "NE", "E", "SE", "S", "SW", "W", "NW"))
    rose.grid(True)
    scatter, rain, year = (figure.add_subplot(2, 2, 2 + i) for i in range(3))
    for frame, color, label, width in ((rows, BLUE, "held out", 3.5), (drawn, ORANGE, "drawn", 1.5)):
        windy = frame.filter(pl.col(SPEED) > 0)["wind_direction"].to_numpy()
        share, edges = np.histogram(windy % 360, np.arange(-5, 360, 10))
        angles = np.deg2rad(np.append(edges[:-1] + 5, 0))
        rose.plot(angles, np.append(share, share[0]) / len(windy), color=color, lw=width, label=f"{len(frame):,} hours {label}")
        few = frame.sample(1_000, seed=0)
        scatter.plot(few["temperature_f"], few["dew_point_f"], ".", color=color, ms=3, alpha=0.6)
        wet = np.sort(frame["rain_in"].to_numpy())
        rain.plot(wet, 100 * (1 - np.arange(len(wet)) / len(wet)), color=color, lw=width)
        month = frame.group_by(pl.col("time").dt.month()).agg(
            pl.col("temperature_f").quantile(q).alias(f"{q}") for q in (0.1, 0.5, 0.9)
        )
        month = month.sort("time")
        for q, style in (("0.1", ":"), ("0.5", "-"), ("0.9", ":")):
            year.plot(month["time"], month[q], style, color=color, lw=width)
    figure.legend(loc="outside upper center", ncols=2)
    scatter.set(title="1,000 hours of each", xlabel="temperature, degrees Fahrenheit", ylabel="dew point, degrees Fahrenheit")
    rain.set(title="How often it rains more", xlabel="rain in the hour, inches", ylabel="hours with more, percent")
    rain.set(yscale="log", xlim=(0, 0.25), ylim=(0.1, 20), yticks=(0.1, 1, 10), yticklabels=("0.1", "1", "10"))
    year.set(title="Median, and middle 80% (dotted)", xlabel="month", ylabel="temperature, degrees Fahrenheit")
    year.set_xticks(range(1, 13), list("JFMAMJJASOND"))
    figure.savefig(path)
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
    score, usual = result.log_prob(error)[0], result.p_value(error)[0]
    print(f"The wind of {error[SPEED][0]:,.0f} miles an hour that somebody recorded: {score:.2f} nats")
    print(f"Of hours like those fitted, at most {usual:.2%} are as unusual")
    result.save(options.out / "weather.flows")
    print("wrote", options.out / "mixed_table.png", options.out / "weather.flows")


if __name__ == "__main__":
    main()
