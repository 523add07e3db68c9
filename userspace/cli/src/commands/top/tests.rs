//! The screen on a terminal in memory: what it shows, and what keys do.

use super::*;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use weft_api::agent::{DropInfo, FlowInfo, PortInfo, PortState};

fn sample_at(at: Instant, packets: u64) -> Sample {
    let port = |name: &str, factor: u64| PortInfo {
        id: name.into(),
        name: name.into(),
        state: PortState::Active,
        ingress_packets: packets * factor,
        egress_packets: packets * 2 * factor,
        ingress_bytes: packets * factor * 100,
        ..PortInfo::default()
    };
    let remote = PortInfo {
        state: PortState::Remote,
        ..port("web/far", 1)
    };
    Sample {
        at,
        ports: vec![port("web/slow", 1), port("web/fast", 1000), remote],
        flows: vec![FlowInfo {
            id: "f".into(),
            matches: "in=web/fast,ip".into(),
            actions: "output(web/slow)".into(),
            packets: packets * 7,
            ..FlowInfo::default()
        }],
        drops: vec![DropInfo {
            port: Some("web/slow".into()),
            reason: "no_route".into(),
            packets: packets + 40,
            ..DropInfo::default()
        }],
    }
}

/// Two seconds in which 20 packets of each kind went by.
fn view() -> View {
    let start = Instant::now();
    let (before, now) = (sample_at(start, 10), sample_at(start + 2 * REFRESH, 30));
    View {
        rates: Rates::between(&before, &now),
        tab: 0,
        sort: [usize::MAX; 3],
        scroll: 0,
        problem: None,
    }
}

fn screen(view: &View) -> Vec<String> {
    let mut terminal = Terminal::new(TestBackend::new(100, 8)).unwrap();
    terminal.draw(|frame| draw(frame, view)).unwrap();
    let buffer = terminal.backend().buffer();
    let width = usize::from(buffer.area.width);
    let lines = buffer.content.chunks(width);
    lines
        .map(|line| line.iter().map(|cell| cell.symbol()).collect::<String>())
        .collect()
}

fn press(view: &mut View, code: KeyCode) -> Action {
    view.press(KeyEvent::from(code))
}

fn words(line: &str) -> Vec<&str> {
    line.split_whitespace().collect()
}

#[test]
fn ports_are_shown_busiest_first_with_their_rates() {
    let lines = screen(&view());
    assert_eq!(words(&lines[0]), ["ports", "│", "flows", "│", "drops"]);
    assert!(lines[1].contains("OUT P/S▼"), "{lines:?}");
    assert_eq!(
        words(&lines[2]),
        ["web/fast", "0", "8.0M", "0", "10.0k", "20.0k"]
    );
    assert_eq!(words(&lines[3]), ["web/slow", "0", "8.0k", "0", "10", "20"]);
    assert_eq!(words(&lines[4]), [""; 0], "a port of another host");
    assert!(lines[7].starts_with("q quit"), "{lines:?}");
}

#[test]
fn keys_change_table_sorting_and_quit() {
    let mut view = view();
    assert_eq!(press(&mut view, KeyCode::Char('s')), Action::Stay);
    let lines = screen(&view);
    assert!(
        lines[1].contains("PORT▼") && lines[2].starts_with("web/fast"),
        "{lines:?}"
    );
    press(&mut view, KeyCode::Down);
    assert!(screen(&view)[2].starts_with("web/slow"));
    press(&mut view, KeyCode::Tab);
    let lines = screen(&view);
    assert!(
        lines[2].starts_with("in=web/fast,ip -> output(web/slow)"),
        "{lines:?}"
    );
    assert_eq!(words(&lines[2]).last(), Some(&"70"));
    press(&mut view, KeyCode::Tab);
    assert_eq!(
        words(&screen(&view)[2]),
        ["web/slow", "no_route", "70", "10"]
    );
    press(&mut view, KeyCode::Down);
    press(&mut view, KeyCode::Tab);
    let lines = screen(&view);
    assert!(
        lines[1].starts_with("PORT▼") && lines[2].starts_with("web/fast"),
        "another table begins at its top: {lines:?}"
    );
    press(&mut view, KeyCode::BackTab);
    assert!(screen(&view)[1].starts_with("PORT AND REASON"));
    assert_eq!(press(&mut view, KeyCode::Char('q')), Action::Quit);
    let interrupt = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
    assert_eq!(view.press(interrupt), Action::Quit);
}

#[test]
fn an_agent_that_went_away_is_told_on_the_screen() {
    let mut view = view();
    view.problem = Some("weftd doesn't answer".into());
    assert!(screen(&view)[7].starts_with("weftd doesn't answer"));
}

#[test]
fn counters_that_were_started_anew_count_from_zero() {
    let start = Instant::now();
    let rates = Rates::between(&sample_at(start, 500), &sample_at(start + REFRESH, 3));
    assert_eq!(rates.ports[0].ingress_packets_per_sec, 3.0);
}
