//! The figures as a picture: throughput on the left, latency on the right.

use anyhow::Context as _;
use plotters::{
    coord::Shift,
    prelude::{
        BLACK, ChartBuilder, Color as _, DrawingArea, IntoDrawingArea as _, IntoFont as _,
        IntoLogRange as _, IntoTextStyle as _, LineSeries, PathElement, RGBColor, Rectangle,
        SVGBackend, SeriesLabelPosition, Text, WHITE,
    },
};

use super::{measure::Percentiles, payload::Payload, report::Report};

const SIZE: (u32, u32) = (1280, 560);
const LEFT: u32 = 680;
/// What a soak takes below that.
const BELOW: u32 = 380;
/// Of all that is written.
pub const FONT: &str = "sans-serif";
/// Ours, and what it is compared with.
const OURS: RGBColor = RGBColor(31, 96, 160);
const THEIRS: RGBColor = RGBColor(176, 176, 176);
/// One for each line.
pub const LINES: [RGBColor; 4] =
    [OURS, RGBColor(200, 90, 20), RGBColor(40, 130, 70), RGBColor(130, 60, 150)];
const PERCENTILES: [&str; 5] = ["p50", "p90", "p99", "p99.9", "max"];

/// Where is drawn.
pub type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// One bar.
struct Bar {
    label: String,
    rate: f64,
    ours: bool,
}

/// Draws what was measured, as SVG.
///
/// # Errors
/// What the library says.
pub fn svg(report: &Report) -> anyhow::Result<String> {
    let mut text = String::new();
    {
        let (width, height) = SIZE;
        let (bars, lines) = (bars(report), lines(report));
        let below = if report.soak.is_some() { BELOW } else { 0 };
        // A soak alone needs no room for what was not measured.
        let height = if below > 0 && bars.is_empty() && lines.is_empty() { 0 } else { height };
        let area = SVGBackend::with_string(&mut text, (width, height + below)).into_drawing_area();
        area.fill(&WHITE).context("cannot draw")?;
        let (above, below) = area.split_vertically(height);
        if let Some(soak) = &report.soak {
            super::soak::picture::draw(&below, soak)?;
        }
        if height > 0 {
            let (left, right) = above.split_horizontally(LEFT);
            throughput(&left, &bars).context("cannot draw the throughput")?;
            latency(&right, &lines).context("cannot draw the latency")?;
        }
        area.present().context("cannot draw")?;
    }
    Ok(text)
}

/// Messages a second, from the top down.
fn throughput(area: &Area<'_>, bars: &[Bar]) -> anyhow::Result<()> {
    let most = bars.iter().map(|bar| bar.rate).fold(1.0, f64::max);
    // Room for what is written beside the longest one.
    let range = 0.0..most * 1.9;
    let mut chart = ChartBuilder::on(area)
        .margin(16)
        .caption("Messages a second", (FONT, 20))
        .x_label_area_size(30)
        .build_cartesian_2d(range, places(bars.len())..0.0)?;
    chart
        .configure_mesh()
        .disable_y_mesh()
        .disable_y_axis()
        .x_labels(8)
        .x_label_formatter(&|rate| format!("{rate:.0}"))
        .draw()?;
    for (nth, bar) in bars.iter().enumerate() {
        let top = places(nth);
        let color = if bar.ours { OURS } else { THEIRS };
        let corners = [(0.0, top + 0.15), (bar.rate, top + 0.85)];
        let style = (FONT, 13).into_font().color(&BLACK);
        let label = format!("{} {:.0}", bar.label, bar.rate);
        chart.draw_series([Rectangle::new(corners, color.filled())])?;
        chart.draw_series([Text::new(label, (bar.rate + most * 0.01, top + 0.25), style)])?;
    }
    Ok(())
}

/// Milliseconds by percentile, on a logarithmic scale.
fn latency(area: &Area<'_>, lines: &[(String, Percentiles)]) -> anyhow::Result<()> {
    let all = || lines.iter().flat_map(|(_, times)| values(times));
    let most = all().fold(1.0, f64::max) * 1.5;
    let least = all().fold(1.0, f64::min).max(0.01) * 0.7;
    let mut chart = ChartBuilder::on(area)
        .margin(16)
        .caption("Latency, ms", (FONT, 20))
        .x_label_area_size(30)
        .y_label_area_size(52)
        .build_cartesian_2d(0.0..places(PERCENTILES.len() - 1), (least..most).log_scale())?;
    let named = |place: &f64| {
        let nth = (0..PERCENTILES.len()).find(|nth| (places(*nth) - place).abs() < 1e-6);
        nth.map_or_else(String::new, |nth| PERCENTILES[nth].to_owned())
    };
    chart.configure_mesh().x_labels(PERCENTILES.len()).x_label_formatter(&named).draw()?;
    for (nth, (label, times)) in lines.iter().enumerate() {
        let color = LINES[nth % LINES.len()];
        let points = values(times).into_iter().enumerate();
        let points = points.map(|(place, time)| (places(place), time.max(least)));
        chart
            .draw_series(LineSeries::new(points, color.stroke_width(2)))?
            .label(label)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], color.stroke_width(2)));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::LowerRight)
        .background_style(WHITE.mix(0.8))
        .label_font((FONT, 13).into_text_style(area))
        .draw()?;
    Ok(())
}

fn bars(report: &Report) -> Vec<Bar> {
    let mut bars = Vec::new();
    let mut bar = |label: String, rate, ours| bars.push(Bar { label, rate, ours });
    for payload in Payload::ALL {
        let title = payload.title();
        if let Some(told) = report.receive.as_ref().and_then(|all| all.payloads.get(payload.key()))
        {
            bar(format!("receive, {title}:"), told.per_second, true);
            bar("bare confirmed publish:".to_owned(), told.bare_per_second, false);
        }
    }
    if let Some(told) = report.receive.as_ref().map(|all| &all.mixed) {
        bar("receive, all in turns:".to_owned(), told.per_second, true);
        bar("bare confirmed publish:".to_owned(), told.bare_per_second, false);
    }
    for payload in Payload::ALL {
        let title = payload.title();
        if let Some(told) = report.drain.as_ref().and_then(|all| all.payloads.get(payload.key())) {
            bar(format!("drain, {title}:"), told.per_second, true);
            bar("bare set insert:".to_owned(), told.bare_set_insert_per_second, false);
            bar("one by one:".to_owned(), told.one_by_one_per_second, false);
        }
    }
    for (processes, told) in report.workers.iter().flatten() {
        bar(format!("drain, worker processes: {processes},"), told.per_second, true);
    }
    if let Some(told) = &report.dedupe_at_scale {
        bar(format!("claims, {} keys:", told.keys), told.per_second, true);
        bar("claims, no keys:".to_owned(), told.empty_per_second, false);
    }
    if let Some(told) = &report.baseline {
        bar("confirmed publish from memory:".to_owned(), told.publish_per_second, false);
        bar("consume, no database:".to_owned(), told.consume_per_second, false);
    }
    bars
}

fn lines(report: &Report) -> Vec<(String, Percentiles)> {
    let mut lines = Vec::new();
    for payload in Payload::ALL {
        if let Some(told) = report.receive.as_ref().and_then(|all| all.payloads.get(payload.key()))
        {
            lines.push((format!("receive at half, {}", payload.title()), told.at_half));
        }
    }
    if let Some(told) = &report.end_to_end {
        lines.push((format!("end to end, {}/s", told.rate), told.times));
    }
    lines
}

fn values(times: &Percentiles) -> [f64; 5] {
    [times.p50_ms, times.p90_ms, times.p99_ms, times.p999_ms, times.max_ms]
}

/// A count as a place on an axis.
fn places(count: usize) -> f64 {
    super::measure::real(count)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::tools::bench::{
        report::{EndToEnd, Receive, Received},
        soak::{Soak, sample::Sample},
    };

    #[test]
    fn a_picture_shows_every_figure() {
        let received = Received {
            per_second: 12_345.0,
            bare_per_second: 13_000.0,
            at_half: Percentiles {
                p50_ms: 1.0,
                p99_ms: 7.0,
                max_ms: 30.0,
                ..Percentiles::default()
            },
            ..Received::default()
        };
        let report = Report {
            receive: Some(Receive {
                headline: received,
                payloads: BTreeMap::from([(Payload::Generic.key(), received)]),
                ..Receive::default()
            }),
            end_to_end: Some(EndToEnd { rate: 1000, ..EndToEnd::default() }),
            ..Report::default()
        };
        let text = svg(&report).unwrap();
        assert!(text.starts_with("<svg") && text.trim_end().ends_with("</svg>"), "{text}");
        for told in ["12345", "13000", "end to end, 1000/s", "p99.9"] {
            assert!(text.contains(told), "{told} is missing: {text}");
        }
    }

    #[test]
    fn nothing_measured_is_a_picture_too() {
        assert!(svg(&Report::default()).unwrap().contains("</svg>"));
    }

    #[test]
    fn a_soak_stands_below() {
        let sample = |at_seconds| Sample { at_seconds, resident_mib: 60.0, ..Sample::default() };
        let samples = vec![sample(30.0), sample(60.0)];
        let soak = Some(Soak { rate: 500, samples, ..Soak::default() });
        let text = svg(&Report { soak: soak.clone(), ..Report::default() }).unwrap();
        assert!(!text.contains("Messages a second"), "nothing else was measured");
        for told in ["Soak at 500/s", "answered, p99", "Resident memory", "orders"] {
            assert!(text.contains(told), "{told} is missing: {text}");
        }
        let end_to_end = Some(EndToEnd::default());
        let text = svg(&Report { end_to_end, soak, ..Report::default() }).unwrap();
        assert!(text.contains("Soak at 500/s") && text.contains("Messages a second"));
        assert!(!svg(&Report::default()).unwrap().contains("Soak"));
    }
}
