//! Server-sent events (WHATWG HTML, "Server-sent events") out of the chunks of a response.

/// Longest event that is read; a whole topology is one event.
const EVENT_LENGTH_MAX: usize = 256 << 20;

/// One event: its name and its data.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ServerEvent {
    pub(crate) event: String,
    pub(crate) data: String,
}

/// Puts events together from chunks that end anywhere.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    buffer: Vec<u8>,
    /// How much of `buffer` was already searched for a line's end.
    searched: usize,
    current: ServerEvent,
    data_lines: usize,
}

/// An event grew past what is read.
#[derive(Debug)]
pub(crate) struct TooLong;

impl Decoder {
    /// Takes a chunk; `next` gives the events that it completed.
    pub(crate) fn feed(&mut self, chunk: &[u8]) -> Result<(), TooLong> {
        if self.buffer.len() + self.current.data.len() + chunk.len() > EVENT_LENGTH_MAX {
            return Err(TooLong);
        }
        self.buffer.extend_from_slice(chunk);
        Ok(())
    }

    /// The next whole event, if there is one. Comments (keep-alives) are none.
    pub(crate) fn next(&mut self) -> Option<ServerEvent> {
        let mut start = 0;
        let mut done = None;
        while done.is_none() {
            let from = self.searched.max(start);
            let Some(length) = self.buffer[from..].iter().position(|byte| *byte == b'\n') else {
                self.searched = self.buffer.len();
                break;
            };
            let end = from + length;
            let line = String::from_utf8_lossy(&self.buffer[start..end]).into_owned();
            start = end + 1;
            self.searched = start;
            done = self.line(line.strip_suffix('\r').unwrap_or(&line));
        }
        self.buffer.drain(..start);
        self.searched -= start;
        done
    }

    fn line(&mut self, line: &str) -> Option<ServerEvent> {
        if line.is_empty() {
            let event = std::mem::take(&mut self.current);
            let lines = std::mem::take(&mut self.data_lines);
            return (lines > 0).then_some(event);
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => self.current.event = value.to_owned(),
            "data" => {
                if self.data_lines > 0 {
                    self.current.data.push('\n');
                }
                self.current.data.push_str(value);
                self.data_lines += 1;
            }
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(text: &[u8], chunk: usize) -> Vec<ServerEvent> {
        let mut decoder = Decoder::default();
        let mut events = Vec::new();
        for piece in text.chunks(chunk) {
            decoder.feed(piece).unwrap();
            while let Some(event) = decoder.next() {
                events.push(event);
            }
        }
        events
    }

    #[test]
    fn events_come_out_whole_however_they_are_cut() {
        let text = b": hello\n\nevent: change\nid: 7\ndata: {\"a\":1,\ndata: \"b\":2}\n\n:\n\r\nevent:reset\r\ndata:{}\r\n\r\nevent: cut\ndata: off";
        let whole = events(text, text.len());
        assert_eq!(
            whole,
            [
                ServerEvent {
                    event: "change".into(),
                    data: "{\"a\":1,\n\"b\":2}".into()
                },
                ServerEvent {
                    event: "reset".into(),
                    data: "{}".into()
                },
            ]
        );
        for chunk in 1..20 {
            assert_eq!(events(text, chunk), whole, "in chunks of {chunk}");
        }
    }
}
