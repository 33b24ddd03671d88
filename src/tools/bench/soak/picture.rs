//! A soak as a picture: latency, memory and the size of rows over time.

use anyhow::Context as _;
use plotters::prelude::{
    ChartBuilder, Color as _, IntoTextStyle as _, LineSeries, PathElement, SeriesLabelPosition,
    WHITE,
};

use super::{Soak, sample::Sample};
use crate::tools::bench::{
    baseline::books::TABLES,
    plot::{Area, FONT, LINES},
};

/// A line over time.
struct Curve {
    label: String,
    /// Minutes, and the figure.
    points: Vec<(f64, f64)>,
}

/// Draws three panels beside each other.
///
/// # Errors
/// What the library says.
pub fn draw(area: &Area<'_>, soak: &Soak) -> anyhow::Result<()> {
    let panels = area.split_evenly((1, 3));
    let [times, memory, rows] = panels.as_slice() else { return Ok(()) };
    let curve = |label: &str, of: fn(&Sample) -> Option<f64>| {
        let point = |sample: &Sample| Some((minutes(sample), of(sample)?));
        Curve { label: label.to_owned(), points: soak.samples.iter().filter_map(point).collect() }
    };
    let latency = [
        curve("answered, p50", |sample| Some(sample.answered?.p50_ms)),
        curve("answered, p99", |sample| Some(sample.answered?.p99_ms)),
        curve("committed, p50", |sample| Some(sample.committed?.p50_ms)),
        curve("committed, p99", |sample| Some(sample.committed?.p99_ms)),
    ];
    panel(times, &format!("Soak at {}/s: latency, ms", soak.rate), &latency)
        .context("cannot draw the soak's latency")?;
    let resident = [curve("serve", |sample| Some(sample.resident_mib))];
    panel(memory, "Resident memory, MiB", &resident).context("cannot draw the soak's memory")?;
    let sizes = TABLES.map(|table| Curve {
        label: table.to_owned(),
        points: soak.samples.iter().filter_map(|sample| grown(soak, table, sample)).collect(),
    });
    panel(rows, "Bytes a row, first third = 1", &sizes).context("cannot draw the soak's tables")
}

fn panel(area: &Area<'_>, caption: &str, curves: &[Curve]) -> anyhow::Result<()> {
    let all = || curves.iter().flat_map(|curve| &curve.points);
    let end = all().map(|(minutes, _)| *minutes).fold(0.01, f64::max);
    let most = all().map(|(_, figure)| *figure).fold(0.01, f64::max);
    let mut chart = ChartBuilder::on(area)
        .margin(16)
        .caption(caption, (FONT, 18))
        .x_label_area_size(40)
        .y_label_area_size(52)
        // Room for the legend.
        .build_cartesian_2d(0.0..end, 0.0..most * 1.3)?;
    chart
        .configure_mesh()
        .x_labels(6)
        .x_desc("minutes")
        .max_light_lines(0)
        .x_label_formatter(&|minutes| format!("{minutes:.1}"))
        .draw()?;
    for (nth, curve) in curves.iter().enumerate() {
        let color = LINES[nth % LINES.len()];
        chart
            .draw_series(LineSeries::new(curve.points.iter().copied(), color.stroke_width(2)))?
            .label(&curve.label)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], color.stroke_width(2)));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .background_style(WHITE.mix(0.8))
        .label_font((FONT, 13).into_text_style(area))
        .draw()?;
    Ok(())
}

/// What a table's rows took, against what they took in the first third.
fn grown(soak: &Soak, table: &str, sample: &Sample) -> Option<(f64, f64)> {
    let first = soak.flatness.get(&format!("{table}_bytes_per_row"))?.first;
    let now = sample.tables.get(table)?;
    (first > 0.0 && now.rows > 0).then(|| (minutes(sample), now.bytes_per_row / first))
}

fn minutes(sample: &Sample) -> f64 {
    sample.at_seconds / 60.0
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::tools::bench::soak::{flatness::Trend, sample::Table};

    #[test]
    fn rows_are_drawn_against_the_first_third() {
        let trend = Trend { first: 200.0, ..Trend::default() };
        let soak = Soak {
            flatness: BTreeMap::from([("orders_bytes_per_row".to_owned(), trend)]),
            ..Soak::default()
        };
        let table = Table { rows: 1, bytes_per_row: 300.0, ..Table::default() };
        let sample = Sample {
            at_seconds: 90.0,
            tables: BTreeMap::from([("orders", table), ("inbox", table)]),
            ..Sample::default()
        };
        assert_eq!(grown(&soak, "orders", &sample), Some((1.5, 1.5)));
        // Nothing to hold it against.
        assert_eq!(grown(&soak, "inbox", &sample), None);
    }
}
