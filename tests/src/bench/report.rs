//! From samples to rows, and from rows to a table and JSON.
//!
//! State: each series, that is the values of a case and a contestant, round by round.

use std::collections::BTreeMap;
use std::fmt;

use anyhow::{Context, Result};
use serde::{Serialize, Serializer};

use super::case::{Bench, goal};
use super::contestant::Contestant;

/// A measured value.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// The case's whole name.
    pub case: String,
    /// What the value counts.
    pub unit: Unit,
    /// The value.
    pub value: f64,
}

/// What a value counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Packets in a second.
    PacketsPerSecond,
    /// Requests or connections in a second.
    PerSecond,
    /// Nanoseconds.
    Nanoseconds,
}

/// Which of two values is the better one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Better {
    /// The higher.
    Higher,
    /// The lower.
    Lower,
}

impl Unit {
    fn better(self) -> Better {
        match self {
            Unit::PacketsPerSecond | Unit::PerSecond => Better::Higher,
            Unit::Nanoseconds => Better::Lower,
        }
    }
}

impl fmt::Display for Unit {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(match self {
            Unit::PacketsPerSecond => "packet/s",
            Unit::PerSecond => "1/s",
            Unit::Nanoseconds => "ns",
        })
    }
}

impl Serialize for Unit {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// One line of the report.
#[derive(Debug, Serialize)]
pub struct Row {
    bench: &'static str,
    case: String,
    contestant: &'static str,
    median: f64,
    min: f64,
    max: f64,
    unit: Unit,
    better: Better,
    /// The contestant that this one is compared with.
    limit: &'static str,
    /// Median of the rounds' ratios, each turned so that more is better.
    ratio: f64,
    /// The ratio that is wanted.
    goal: Option<f64>,
}

/// All values so far.
#[derive(Debug, Default)]
pub struct Results {
    series: BTreeMap<(Bench, usize, Contestant), Series>,
    /// Cases in the order in which they came.
    cases: Vec<(Bench, String)>,
}

#[derive(Debug)]
struct Series {
    unit: Unit,
    /// One for each round.
    values: Vec<f64>,
}

impl Results {
    /// Adds what one measurement found; each contestant is measured once in a round.
    pub fn add(&mut self, bench: Bench, contestant: Contestant, samples: Vec<Sample>) {
        for Sample { case, unit, value } in samples {
            let named = (bench, case);
            let known = self.cases.iter().position(|known| *known == named);
            let number = known.unwrap_or_else(|| {
                self.cases.push(named);
                self.cases.len() - 1
            });
            let series = self
                .series
                .entry((bench, number, contestant))
                .or_insert(Series {
                    unit,
                    values: Vec::new(),
                });
            series.values.push(value);
        }
    }

    /// The rows, by benchmark and case, the limit first.
    pub fn rows(&self) -> Result<Vec<Row>> {
        let row =
            |(&(bench, number, contestant), series): (&(Bench, usize, Contestant), &Series)| {
                let limit = self.series.get(&(bench, number, Contestant::LIMIT));
                let limit = limit.context("the limit was not measured")?;
                let better = series.unit.better();
                let rounds = series.values.iter().zip(&limit.values);
                let ratios: Vec<f64> = rounds
                    .map(|(value, limit)| ratio(better, *value, *limit))
                    .collect();
                let case = self.cases[number].1.clone();
                Ok(Row {
                    bench: bench.name(),
                    contestant: contestant.name(),
                    median: median(&series.values),
                    min: series.values.iter().copied().fold(f64::INFINITY, f64::min),
                    max: series.values.iter().copied().fold(0.0, f64::max),
                    unit: series.unit,
                    better,
                    limit: Contestant::LIMIT.name(),
                    ratio: median(&ratios),
                    goal: goal(bench, &case, contestant),
                    case,
                })
            };
        self.series.iter().map(row).collect()
    }
}

/// The rows for people.
pub fn table(rows: &[Row]) -> String {
    let mut text = format!(
        "{:<8} {:<18} {:<10} {:>11} {:>11} {:>11}  {:<9} {:>6} {:>5}\n",
        "bench", "case", "contestant", "median", "min", "max", "unit", "ratio", "goal"
    );
    for row in rows {
        let Row {
            bench,
            case,
            contestant,
            median,
            min,
            max,
            unit,
            better: _,
            limit: _,
            ratio,
            goal,
        } = row;
        let goal = goal.map_or(String::new(), |goal| format!("{goal:.2}"));
        text += &format!(
            "{bench:<8} {case:<18} {contestant:<10} {median:>11.0} {min:>11.0} {max:>11.0}  {unit:<9} {ratio:>6.3} {goal:>5}\n"
        );
    }
    text + &format!(
        "ratio: to {} in the same round, median of the rounds; more is better\n",
        Contestant::LIMIT.name()
    )
}

/// The rows for machines: an array, a row a line.
pub fn json(rows: &[Row]) -> Result<String> {
    let lines: Result<Vec<String>, _> = rows.iter().map(serde_json::to_string).collect();
    Ok(format!("[\n  {}\n]\n", lines?.join(",\n  ")))
}

/// A value compared with the limit's, so that more is better.
fn ratio(better: Better, value: f64, limit: f64) -> f64 {
    match better {
        Better::Higher => value / limit,
        Better::Lower => limit / value,
    }
}

/// The middle value; of an even number of values the mean of the two in the middle.
fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let upper = sorted.len() / 2;
    match sorted.as_slice() {
        [] => f64::NAN,
        sorted if sorted.len() % 2 == 1 => sorted[upper],
        sorted => (sorted[upper - 1] + sorted[upper]) / 2.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn rounds(unit: Unit, case: &str, values: &[(Contestant, [f64; 3])]) -> Results {
        let mut results = Results::default();
        for round in 0..3 {
            for (contestant, values) in values {
                let sample = Sample {
                    case: case.into(),
                    unit,
                    value: values[round],
                };
                results.add(Bench::Rr, *contestant, vec![sample]);
            }
        }
        results
    }

    #[test]
    fn the_median_is_the_middle_value() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 3.0, 2.0]), 2.5);
        assert_eq!(median(&[7.0]), 7.0);
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn the_ratio_says_better_by_more() {
        assert_eq!(ratio(Better::Higher, 150.0, 100.0), 1.5);
        assert_eq!(ratio(Better::Lower, 50.0, 100.0), 2.0);
    }

    #[test]
    fn the_ratio_is_the_median_of_the_rounds_and_not_of_the_medians() {
        let values = [
            (Contestant::Weft, [90.0, 50.0, 300.0]),
            (Contestant::Bridge, [100.0, 200.0, 300.0]),
        ];
        let rows = rounds(Unit::PerSecond, "1-in-flight/rate", &values)
            .rows()
            .unwrap();
        // 0.9, 0.25 and 1.0; the medians' would be 0.45.
        let (bridge, weft) = (&rows[0], &rows[1]);
        assert_eq!(
            (weft.contestant, weft.ratio, weft.median),
            ("weft", 0.9, 90.0)
        );
        assert_eq!((bridge.contestant, bridge.ratio), ("bridge", 1.0));
    }

    #[test]
    fn a_row_without_its_limit_is_an_error() {
        let alone = [(Contestant::Weft, [1.0, 2.0, 3.0])];
        assert!(rounds(Unit::PerSecond, "x", &alone).rows().is_err());
    }

    #[test]
    fn the_json_has_the_fields_that_others_read() {
        let values = [
            (Contestant::Bridge, [100.0, 100.0, 100.0]),
            (Contestant::Weft, [200.0, 250.0, 400.0]),
        ];
        let latency = rounds(Unit::Nanoseconds, "1-in-flight/p50", &values)
            .rows()
            .unwrap();
        let rate = rounds(Unit::PerSecond, "1-in-flight/rate", &values)
            .rows()
            .unwrap();
        let read = |rows: &[Row]| -> Value { serde_json::from_str(&json(rows).unwrap()).unwrap() };
        assert_eq!(
            read(&latency)[1],
            json!({
                "bench": "rr", "case": "1-in-flight/p50", "contestant": "weft",
                "median": 250.0, "min": 200.0, "max": 400.0, "unit": "ns", "better": "lower",
                "limit": "bridge", "ratio": 0.4, "goal": null,
            })
        );
        let rate = read(&rate);
        assert_eq!(
            (
                &rate[1]["unit"],
                &rate[1]["better"],
                &rate[1]["ratio"],
                &rate[1]["goal"]
            ),
            (&json!("1/s"), &json!("higher"), &json!(2.5), &json!(1.0))
        );
        assert_eq!(
            (&rate[0]["ratio"], &rate[0]["goal"]),
            (&json!(1.0), &json!(null))
        );
    }
}
