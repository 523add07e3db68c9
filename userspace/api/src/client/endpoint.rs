//! Where an API is: `http://HOST:PORT` or `unix:/PATH`, and the forms that `[store] url` has.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// Port of `http://HOST` without one.
pub const PORT_DEFAULT: u16 = 7443;

/// Address of a weftd's API.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// TCP, as "HOST:PORT".
    Http(String),
    /// A unix socket.
    Unix(PathBuf),
}

/// Why a text is not an endpoint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not an endpoint: {reason} (expected http://HOST:PORT or unix:/PATH)")]
pub struct EndpointError {
    text: String,
    reason: String,
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    /// Takes `http://..` and `unix:/..`, with or without the `weftd+` of a store's URL.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = |reason: &str| EndpointError {
            text: text.into(),
            reason: reason.into(),
        };
        let rest = text.strip_prefix("weftd+").unwrap_or(text);
        if let Some(path) = rest.strip_prefix("unix:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            if !path.starts_with('/') {
                return Err(error("the path of a socket starts with `/`"));
            }
            return Ok(Endpoint::Unix(path.into()));
        }
        if rest.starts_with("https://") {
            return Err(error("TLS is not supported by this version of weft"));
        }
        let Some(authority) = rest.strip_prefix("http://") else {
            return Err(error("its scheme is not known"));
        };
        let authority = authority.strip_suffix('/').unwrap_or(authority);
        if authority.is_empty() || authority.contains(['/', '?', '#', '@', ' ']) {
            return Err(error(
                "after `http://` comes a host and its port, nothing else",
            ));
        }
        let after_address = authority
            .rsplit_once(']')
            .map_or(authority, |(_, rest)| rest);
        match after_address.split_once(':') {
            Some((_, port)) if port.parse::<u16>().is_err() => Err(error("its port is no number")),
            Some(_) => Ok(Endpoint::Http(authority.into())),
            None => Ok(Endpoint::Http(format!("{authority}:{PORT_DEFAULT}"))),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Endpoint::Http(authority) => write!(f, "http://{authority}"),
            Endpoint::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_parse_and_print() {
        for (text, printed) in [
            ("http://10.0.0.1:7443", "http://10.0.0.1:7443"),
            ("http://store.example/", "http://store.example:7443"),
            ("http://[fd00::1]:80", "http://[fd00::1]:80"),
            ("http://[fd00::1]", "http://[fd00::1]:7443"),
            ("unix:/run/weft/weftd.sock", "unix:/run/weft/weftd.sock"),
            ("unix:///run/weft/weftd.sock", "unix:/run/weft/weftd.sock"),
            ("weftd+unix:/run/weft/h1.sock", "unix:/run/weft/h1.sock"),
            ("weftd+http://10.0.0.1:7443", "http://10.0.0.1:7443"),
        ] {
            assert_eq!(
                text.parse::<Endpoint>().unwrap().to_string(),
                printed,
                "{text}"
            );
        }
    }

    #[test]
    fn bad_endpoints_say_why() {
        for (text, reason) in [
            ("https://a:1", "TLS is not supported"),
            ("10.0.0.1:7443", "scheme is not known"),
            ("unix:run/weft.sock", "starts with `/`"),
            ("http://a:port", "port is no number"),
            ("http://", "a host and its port"),
            ("http://a:1/v1", "a host and its port"),
        ] {
            let error = text.parse::<Endpoint>().unwrap_err().to_string();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }
}
