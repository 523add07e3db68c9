//! The log on standard error: lines for people, or JSON for machines.
//!
//! In JSON each event is one object: `timestamp`, `level`, `target`, `host` (this host), `message`, and the event's
//! own fields beside them, above all `peer` (another host), `port`, `interface` and `error`.

use serde::Deserialize;
use std::fmt;
use std::io::IsTerminal;
use tracing::{Event, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::{Format, Json, JsonFields, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// How lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Starts logging. `WEFT_LOG_FORMAT` (text or json) wins over the configuration; `WEFT_LOG` says what is logged
/// ("info", "debug", "weftd::engine=debug").
pub fn start(configured: LogFormat, host: &str) {
    let filter = EnvFilter::try_from_env("WEFT_LOG").unwrap_or_else(|_| "info".into());
    let format = match std::env::var("WEFT_LOG_FORMAT").as_deref() {
        Ok("json") => LogFormat::Json,
        Ok("text") => LogFormat::Text,
        _ => configured,
    };
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    match format {
        LogFormat::Text => log.with_ansi(is_coloured()).init(),
        LogFormat::Json => log
            .fmt_fields(JsonFields::new())
            .event_format(WithHost::new(host))
            .init(),
    }
}

/// Colours are for a terminal, and for who wants them there (no-color.org).
fn is_coloured() -> bool {
    let is_wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    is_wanted && std::io::stderr().is_terminal()
}

/// JSON with the host's name in each object.
struct WithHost {
    json: Format<Json>,
    /// `{"host":"h1",`
    start: String,
}

impl WithHost {
    fn new(host: &str) -> WithHost {
        WithHost {
            json: Format::default().json().flatten_event(true),
            start: format!("{{\"host\":{},", serde_json::Value::from(host)),
        }
    }
}

impl<S, N> FormatEvent<S, N> for WithHost
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut out: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut line = String::new();
        self.json
            .format_event(context, Writer::new(&mut line), event)?;
        match line.strip_prefix('{') {
            Some(rest) => write!(out, "{}{rest}", self.start),
            None => out.write_str(&line),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;
    use std::sync::{Arc, Mutex, PoisonError};

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            lines.extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn json_lines_hold_host_message_and_fields() {
        let lines = Lines::default();
        let to = lines.clone();
        let log = tracing_subscriber::fmt()
            .with_writer(move || to.clone())
            .fmt_fields(JsonFields::new())
            .event_format(WithHost::new("h\"1"))
            .finish();
        tracing::subscriber::with_default(log, || {
            tracing::warn!(peer = "h2", port = "web/web-1", "a host is away");
        });
        let bytes = lines.0.lock().unwrap_or_else(PoisonError::into_inner);
        let line: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
        for (field, value) in [
            ("host", "h\"1"),
            ("level", "WARN"),
            ("message", "a host is away"),
            ("peer", "h2"),
            ("port", "web/web-1"),
        ] {
            assert_eq!(line[field], value, "{line}");
        }
        assert!(
            line["timestamp"].is_string() && line["target"].is_string(),
            "{line}"
        );
    }
}
