//! `top`: what ports, flows and drops are doing now, once a second. Without a terminal one snapshot is printed.
//!
//! [`rates`] turns two samples into rows, [`draw`] rows into a screen; both are pure.

mod rates;

use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use ratatui::layout::{Constraint, Layout};
use ratatui::style::{Modifier, Style};
use ratatui::text::Line;
use ratatui::widgets::{Cell, Paragraph, Row, Table as TableWidget, Tabs};
use ratatui::{DefaultTerminal, Frame};
use rates::{Rates, Sample, Table};
use tokio::sync::mpsc;

use super::Session;
use crate::Done;
use crate::args::Format;

const REFRESH: Duration = Duration::from_secs(1);
const HELP: &str = "q quit   tab next table   s sort by next column   arrows scroll";

/// What is shown, and of what.
struct View {
    rates: Rates,
    tab: usize,
    /// Column that each table is sorted by.
    sort: [usize; 3],
    scroll: usize,
    /// Why the last sample failed.
    problem: Option<String>,
}

/// What a key does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Quit,
    Stay,
}

/// Shows what goes on until `q`.
pub async fn top(session: &Session) -> Result<Done> {
    let first = sample(session).await?;
    if !io::stdout().is_terminal() || session.output.format != Format::Table {
        return once(session, &first).await;
    }
    let mut terminal = ratatui::try_init().context("taking over the terminal")?;
    let shown = run(session, &mut terminal, first).await;
    ratatui::restore();
    shown
}

/// One snapshot, over one second.
async fn once(session: &Session, first: &Sample) -> Result<Done> {
    tokio::time::sleep(REFRESH).await;
    let rates = Rates::between(first, &sample(session).await?);
    session.output.show(&rates, || {
        let text = rates.tables().map(|table| {
            let columns: Vec<&str> = table.columns.to_vec();
            let rows = table.sorted(table.columns.len() - 1);
            format!(
                "{}\n{}",
                table.title,
                session.output.table(&columns, &columns[1..], rows)
            )
        });
        text.join("\n")
    })?;
    Ok(Done::Well)
}

async fn sample(session: &Session) -> Result<Sample> {
    let (client, at) = (&session.client, Instant::now());
    let mut ports = client.port_activity().await?;
    let mut flows = client.flows().await?;
    let mut drops = client.drops().await?;
    ports.retain(|port| session.wants(&port.tenant));
    flows.retain(|flow| session.wants(&flow.tenant));
    drops.retain(|drop| session.wants(drop.tenant.as_deref().unwrap_or_default()));
    Ok(Sample {
        at,
        ports,
        flows,
        drops,
    })
}

async fn run(session: &Session, terminal: &mut DefaultTerminal, first: Sample) -> Result<Done> {
    let mut keys = read_keys();
    let mut last = first;
    let mut view = View {
        rates: Rates::between(&last, &last),
        tab: 0,
        sort: [usize::MAX; 3],
        scroll: 0,
        problem: None,
    };
    let mut ticks = tokio::time::interval(REFRESH);
    loop {
        terminal.draw(|frame| draw(frame, &view))?;
        tokio::select! {
            _ = ticks.tick() => match sample(session).await {
                Ok(now) => {
                    view.rates = Rates::between(&last, &now);
                    view.problem = None;
                    last = now;
                }
                Err(error) => view.problem = Some(format!("{error:#}")),
            },
            key = keys.recv() => match key {
                Some(key) if view.press(key) == Action::Stay => {}
                _ => return Ok(Done::Well),
            },
        }
    }
}

/// Keys from a thread of their own: reading them blocks.
fn read_keys() -> mpsc::UnboundedReceiver<KeyEvent> {
    let (sender, keys) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        while let Ok(event) = event::read() {
            // A resize only wants to be drawn: any key that does nothing will do.
            let key = match event {
                Event::Key(key) if key.kind == KeyEventKind::Press => key,
                Event::Resize(..) => KeyEvent::from(KeyCode::Null),
                _ => continue,
            };
            if sender.send(key).is_err() {
                return;
            }
        }
    });
    keys
}

impl View {
    fn press(&mut self, key: KeyEvent) -> Action {
        let columns = self.table().columns.len();
        match key.code {
            KeyCode::Char('q') | KeyCode::Esc => return Action::Quit,
            KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => {
                return Action::Quit;
            }
            KeyCode::Tab | KeyCode::Right => self.show(self.tab + 1),
            KeyCode::BackTab | KeyCode::Left => self.show(self.tab + 2),
            KeyCode::Char('s') => self.sort[self.tab] = (self.sorted_by() + 1) % columns,
            KeyCode::Down => self.scroll += 1,
            KeyCode::Up => self.scroll = self.scroll.saturating_sub(1),
            _ => {}
        }
        Action::Stay
    }

    fn show(&mut self, tab: usize) {
        self.tab = tab % 3;
        self.scroll = 0;
    }

    fn table(&self) -> Table {
        let [ports, flows, drops] = self.rates.tables();
        match self.tab {
            0 => ports,
            1 => flows,
            _ => drops,
        }
    }

    /// The last column, which is the busiest first, until another is asked for.
    fn sorted_by(&self) -> usize {
        self.sort[self.tab].min(self.table().columns.len() - 1)
    }
}

fn draw(frame: &mut Frame<'_>, view: &View) {
    let areas = Layout::vertical([
        Constraint::Length(1),
        Constraint::Min(1),
        Constraint::Length(1),
    ]);
    let [head, body, foot] = areas.areas(frame.area());
    let titles = view.rates.tables().map(|table| table.title);
    frame.render_widget(Tabs::new(titles).select(view.tab), head);
    let table = view.table();
    let by = view.sorted_by();
    let heading = table.columns.iter().enumerate().map(|(index, column)| {
        let mark = if index == by { "▼" } else { "" };
        Cell::from(format!("{column}{mark}"))
    });
    let style = Style::new().add_modifier(Modifier::BOLD);
    let rows = table.sorted(by);
    let scroll = view.scroll.min(rows.len().saturating_sub(1));
    let rows = rows.into_iter().skip(scroll).map(Row::new);
    let widths = table
        .columns
        .iter()
        .enumerate()
        .map(|(index, _)| match index {
            0 => Constraint::Fill(1),
            _ => Constraint::Length(13),
        });
    let shown = TableWidget::new(rows, widths).header(Row::new(heading).style(style));
    frame.render_widget(shown, body);
    let text = view.problem.as_deref().unwrap_or(HELP);
    frame.render_widget(Paragraph::new(Line::from(text)), foot);
}

#[cfg(test)]
mod tests;
