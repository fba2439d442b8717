"""A classifier of orders, pandas and scikit-learn, that answers requests over its standard streams.

It stands for a function that scores records with a model of the usual kind: a pipeline that fills gaps, scales numbers and encodes
categories, and behind it a forest of decision trees. The forest is grown at the start, from a fixed seed, on orders that are made
up from the same seed, so that no file is needed and every start has the same trees. A request is a table, an answer one
class and the probabilities of all classes for each of its rows:

    {"csv": "placed,country,...\\n2026-03-14,NO,...\\n"}
        ->  {"classes": ["kept", ...], "probabilities": ["<hex of little-endian float64>", ...], "sha256": "..."}

A cold start pays for growing the forest, where one that reads it from a file would not: what it takes is to be compared with that in mind.

--small grows few trees on few orders, for tests.
"""

import argparse
import hashlib
import io
import json
import os
import sys

import numpy as np
import pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

SEED = 20260104
COUNTRIES = np.array(["DE", "FR", "IS", "NO", "PL", "PT", "SE"])
CHANNELS = np.array(["app", "phone", "shop", "web"])
CLASSES = np.array(["disputed", "kept", "returned"])
NUMBERS = ["items", "total", "discount", "age", "share", "weekday", "month"]
CATEGORIES = ["country", "channel"]


def orders(count):
    """A table of made-up orders, with gaps, and what became of each."""
    draw = np.random.default_rng(SEED)
    table = pd.DataFrame({
        "placed": pd.Timestamp("2025-01-01") + pd.to_timedelta(draw.integers(0, 365, count), unit="D"),
        "country": draw.choice(COUNTRIES, count),
        "channel": draw.choice(CHANNELS, count),
        "items": draw.integers(1, 20, count),
        "total": draw.gamma(2, 60, count).round(2),
        "discount": draw.choice([0, 5, 10, 25], count).astype(float),
        "age": draw.normal(45, 15, count).clip(18, 95).round(),
    })
    # What the trees are to find, and so much chance that they grow deep.
    risk = (table["total"] / table["items"] > 40) * 1.0 + (table["channel"] == "web") * 0.7 + (table["discount"] > 5) * 0.5
    risk += (table["placed"].dt.month == 12) * 0.8 + draw.normal(0, 0.8, count)
    labels = CLASSES[1 + (risk > 1.2) * 1 - (risk > 2.6) * 2]
    for column in ("total", "discount", "age"):
        table.loc[draw.random(count) < 0.03, column] = np.nan
    return table, labels


def features(table):
    """The columns that the model sees."""
    placed = pd.to_datetime(table["placed"])
    return table.assign(share=table["total"] / table["items"], weekday=placed.dt.weekday, month=placed.dt.month)[NUMBERS + CATEGORIES]


def load(count, trees):
    numbers = Pipeline([("fill", SimpleImputer(strategy="median")), ("scale", StandardScaler())])
    prepare = ColumnTransformer([("numbers", numbers, NUMBERS), ("categories", OneHotEncoder(handle_unknown="ignore"), CATEGORIES)])
    forest = RandomForestClassifier(trees, min_samples_leaf=2, random_state=SEED, n_jobs=len(os.sched_getaffinity(0)))
    table, labels = orders(count)
    model = Pipeline([("prepare", prepare), ("forest", forest)]).fit(features(table), labels)
    # A pool of threads for a handful of rows costs more than it brings, and adds up the trees in the order in which they end.
    forest.n_jobs = 1
    return model


def answer(model, request):
    table = pd.read_csv(io.StringIO(request["csv"]))
    probabilities = model.predict_proba(features(table)).astype("<f8")
    rows = [row.tobytes() for row in probabilities]
    return {
        "classes": model.classes_[probabilities.argmax(axis=1)].tolist(),
        "probabilities": [row.hex() for row in rows],
        "sha256": hashlib.sha256(b"".join(rows)).hexdigest(),
    }


def say(message):
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--small", action="store_true")
    small = parser.parse_args().small
    model = load(count=500, trees=10) if small else load(count=20000, trees=100)
    say({"ready": True})
    for line in sys.stdin:
        try:
            say(answer(model, json.loads(line)))
        except (ValueError, KeyError, TypeError) as err:
            say({"error": f"{type(err).__name__}: {err}"})


if __name__ == "__main__":
    main()
