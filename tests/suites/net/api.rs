//! The API beyond loopback: only with a token.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use weft_tests::harness::host::{API_PORT, Store, token_file};
use weft_tests::harness::namespace::Namespace;
use weft_tests::harness::{Run, Underlay};
use weft_tests::scenario;

const ANSWER_LIMIT: Duration = Duration::from_secs(5);

#[scenario]
fn an_agent_refuses_to_listen_beyond_loopback_without_a_token(run: &mut Run) -> Result<()> {
    let net = run.hosts_without_agents(Underlay::Routed, 1)?;
    let host = net.host("h1")?;
    let config = host.config(Store::OwnAndServed);
    let without: String = config
        .lines()
        .filter(|line| !line.starts_with("token_file"))
        .map(|line| format!("{line}\n"))
        .collect();
    host.write_config(&without)?;
    for arguments in [&[][..], &["--check"]] {
        let refused = host.run_agent(arguments)?;
        ensure!(
            !refused.status.success(),
            "it did start: {}",
            refused.describe()
        );
        ensure!(
            refused.stderr.contains("token_file"),
            "{}",
            refused.describe()
        );
    }
    Ok(())
}

#[scenario]
fn a_wrong_token_is_refused(run: &mut Run) -> Result<()> {
    let net = run.hosts(Underlay::Routed, 2)?;
    let token = std::fs::read_to_string(token_file(&net.folder()))?;
    let target = net.host("h1")?.address();
    net.expect_host_traffic("h1", "h2")?;
    let other_host = net.host("h2")?.namespace();
    for path in ["/v1/bridges", "/v1/status", "/v1/topology"] {
        let status = |token: Option<&str>| http_status(other_host, target, path, token);
        ensure!(status(None)? == 401, "{path} without a token");
        ensure!(status(Some("wrong"))? == 401, "{path} with a wrong token");
        ensure!(status(Some(token.trim()))? == 200, "{path} with the token");
    }
    Ok(())
}

/// GETs a path from inside a namespace; the answer's status.
fn http_status(from: &Namespace, target: Ipv4Addr, path: &str, token: Option<&str>) -> Result<u16> {
    let mut request = format!("GET {path} HTTP/1.1\r\nHost: {target}\r\nConnection: close\r\n");
    if let Some(token) = token {
        request += &format!("Authorization: Bearer {token}\r\n");
    }
    request += "\r\n";
    let answer = from.enter(|| {
        let address = SocketAddr::from((target, API_PORT));
        let mut stream = TcpStream::connect_timeout(&address, ANSWER_LIMIT)?;
        stream.set_read_timeout(Some(ANSWER_LIMIT))?;
        stream.write_all(request.as_bytes())?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    })?;
    let status = answer
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok());
    status.with_context(|| format!("no HTTP answer: {answer:?}"))
}
