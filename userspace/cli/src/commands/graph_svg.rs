//! The SVG of `graph`: columns of boxes, routers left, bridges in the middle, hosts right; curves between them.
//!
//! Lines between the same two boxes are spread over their height, each with its label on it. No state.

use std::fmt::Write as _;

use super::graph::Graph;

const BOX_WIDTH: usize = 190;
const LINE_HEIGHT: usize = 17;
/// Least height that a line's end takes of a box, so that labels don't cover each other.
const END_HEIGHT: usize = 20;
const PADDING: usize = 10;
const COLUMN_GAP: usize = 260;
const ROW_GAP: usize = 26;
const MARGIN: usize = 24;
const FILLS: [&str; 3] = ["#fde7c8", "#d7e8fb", "#dff2df"];

/// Where a box is.
struct Place {
    x: usize,
    y: usize,
    height: usize,
}

/// The whole document.
pub fn draw(graph: &Graph) -> String {
    let places = places(graph);
    let width = places
        .iter()
        .map(|it| it.x + BOX_WIDTH)
        .max()
        .unwrap_or(240)
        + MARGIN;
    let height = places.iter().map(|it| it.y + it.height).max().unwrap_or(40) + MARGIN;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\" \
         font-family=\"sans-serif\" font-size=\"13\">\n<rect width=\"{width}\" height=\"{height}\" fill=\"white\"/>\n"
    );
    if places.is_empty() {
        let _ = writeln!(
            svg,
            "<text x=\"{MARGIN}\" y=\"{MARGIN}\">nothing in the topology</text>"
        );
    }
    draw_lines(&mut svg, graph, &places);
    for ((column, title, lines), place) in graph.boxes().zip(&places) {
        draw_box(&mut svg, FILLS[column.min(2)], title, lines, place);
    }
    svg + "</svg>\n"
}

/// Columns are as high as what they hold, each box as high as its text and the ends of its lines.
fn places(graph: &Graph) -> Vec<Place> {
    let mut ends: Vec<(usize, usize)> = graph.boxes().map(|_| (0, 0)).collect();
    for (from, to, ..) in graph.lines() {
        let (left, right) = sides(graph, from, to);
        ends[left].1 += 1;
        ends[right].0 += 1;
    }
    let used: Vec<usize> = (0..3)
        .filter(|it| graph.boxes().any(|(c, ..)| c == *it))
        .collect();
    let mut next = [MARGIN; 3];
    graph
        .boxes()
        .zip(ends)
        .map(|((column, _, lines), (left, right))| {
            let text = (1 + lines.len()) * LINE_HEIGHT + PADDING;
            let height = text.max(left.max(right) * END_HEIGHT + PADDING);
            let shown = used.iter().position(|it| *it == column).unwrap_or(0);
            let place = Place {
                x: MARGIN + shown * (BOX_WIDTH + COLUMN_GAP),
                y: next[column],
                height,
            };
            next[column] += height + ROW_GAP;
            place
        })
        .collect()
}

/// Which end is further left.
fn sides(graph: &Graph, from: usize, to: usize) -> (usize, usize) {
    let column = |node| graph.boxes().nth(node).map_or(0, |(column, ..)| column);
    if column(from) <= column(to) {
        (from, to)
    } else {
        (to, from)
    }
}

fn draw_lines(svg: &mut String, graph: &Graph, places: &[Place]) {
    let mut drawn: Vec<(usize, usize)> = places.iter().map(|_| (0, 0)).collect();
    for (from, to, label, is_live) in graph.lines() {
        let (left, right) = sides(graph, from, to);
        let end = |place: &Place, number: usize| {
            place.y + PADDING / 2 + END_HEIGHT / 2 + number * END_HEIGHT
        };
        let (x1, y1) = (
            places[left].x + BOX_WIDTH,
            end(&places[left], drawn[left].1),
        );
        let (mut x2, y2) = (places[right].x, end(&places[right], drawn[right].0));
        drawn[left].1 += 1;
        drawn[right].0 += 1;
        let mut reach = COLUMN_GAP / 2;
        if x2 < x1 {
            // Two boxes of one column: out on the right and back.
            x2 += BOX_WIDTH;
            reach = COLUMN_GAP / 3;
        }
        let bend = if x2 == x1 {
            x2 + reach
        } else {
            x2.saturating_sub(reach)
        };
        let dash = if is_live {
            ""
        } else {
            " stroke-dasharray=\"5 4\""
        };
        let _ = writeln!(
            svg,
            "<path d=\"M{x1},{y1} C{},{y1} {bend},{y2} {x2},{y2}\" fill=\"none\" stroke=\"#556\"{dash}/>",
            x1 + reach
        );
        // Beside the right end, where lines of different boxes have come apart.
        let (x, anchor) = if x2 == x1 {
            (x2 + 8, "start")
        } else {
            (x2 - 8, "end")
        };
        let _ = writeln!(
            svg,
            "<text x=\"{x}\" y=\"{}\" text-anchor=\"{anchor}\" font-size=\"11\" fill=\"#333\">{}</text>",
            y2 - 3,
            escaped(label)
        );
    }
}

fn draw_box(svg: &mut String, fill: &str, title: &str, lines: &[String], place: &Place) {
    let Place { x, y, height } = place;
    let _ = writeln!(
        svg,
        "<rect x=\"{x}\" y=\"{y}\" width=\"{BOX_WIDTH}\" height=\"{height}\" rx=\"6\" fill=\"{fill}\" stroke=\"#556\"/>"
    );
    let (x, first) = (x + PADDING, y + LINE_HEIGHT);
    let _ = writeln!(
        svg,
        "<text x=\"{x}\" y=\"{first}\" font-weight=\"bold\">{}</text>",
        escaped(title)
    );
    for (index, line) in lines.iter().enumerate() {
        let y = first + (index + 1) * LINE_HEIGHT;
        let _ = writeln!(
            svg,
            "<text x=\"{x}\" y=\"{y}\" fill=\"#333\">{}</text>",
            escaped(line)
        );
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}
