//! How long a line takes from the program that prints it to a client that follows the job. Program and client read
//! the same clock, so this measures a server on this machine only.

use super::{Server, client::Client, client::Request};
use crate::ui;
use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::time::{Duration, SystemTime};
use tungstenite::{Message, protocol::WebSocketConfig};

/// Time between two lines, in milliseconds.
pub const INTERVAL: u64 = 100;

const TIMEOUT: Duration = Duration::from_secs(60);

pub struct Delays {
    what: String,
    sorted: Vec<Duration>,
}

/// Each server and each way to follow a job in turns.
pub fn run(servers: &[Server], rounds: usize, seconds: f64) -> Result<Vec<Delays>> {
    // The wall limit of a job is a minute at most.
    let lines = ((seconds.min(50.0) * 1000.0) as u64 / INTERVAL).max(1);
    let source = format!(
        "import time\nfor _ in range({lines}):\n    print(time.time_ns(), flush=True)\n    time.sleep({})\n",
        INTERVAL as f64 / 1e3
    );
    let job = json!({ "language": "python3", "source_code": source, "limits": { "wall_time_ms": 60_000 } });
    let mut all = Vec::new();
    for server in servers {
        type Way = fn(&str, &str) -> Result<Vec<Duration>>;
        let ways: [(&str, Way); 2] = [("WebSocket", over_websocket), ("server-sent events", over_events)];
        for (name, follow) in ways {
            let mut sorted = Vec::new();
            for _ in 0..rounds {
                let delays = follow(&server.host, &submit(&server.host, &job)?)?;
                if delays.len() as u64 != lines {
                    bail!("{} of {lines} lines came over {name}", delays.len());
                }
                sorted.extend(delays);
            }
            sorted.sort_unstable();
            all.push(Delays { what: format!("{}, {name}", server.name), sorted });
        }
    }
    Ok(all)
}

fn submit(host: &str, job: &Value) -> Result<String> {
    let mut client = Client::connect(host)?;
    let (status, body) = client.send(&Request::post_json(host, "/api/v1/jobs", job))?;
    let answer: Value = serde_json::from_slice(body).context("this is no job")?;
    match answer["id"].as_str() {
        Some(id) if status == 201 => Ok(id.to_owned()),
        _ => bail!("the server answered {status}: {answer}"),
    }
}

fn connect(host: &str) -> Result<TcpStream> {
    let stream = TcpStream::connect(host).with_context(|| format!("no server answers at {host}"))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    Ok(stream)
}

fn over_websocket(host: &str, id: &str) -> Result<Vec<Duration>> {
    let url = format!("ws://{host}/api/v1/jobs/{id}/ws");
    let config = Some(WebSocketConfig::default());
    let (mut socket, _) = tungstenite::client::client_with_config(url, connect(host)?, config)?;
    let mut delays = Vec::new();
    loop {
        let Message::Text(text) = socket.read()? else { continue };
        let event: Value = serde_json::from_str(&text)?;
        match event["event"].as_str() {
            Some("stdout") => delays.extend(since(event["data"].as_str().unwrap_or_default())?),
            Some("done") => return Ok(delays),
            _ => {}
        }
    }
}

fn over_events(host: &str, id: &str) -> Result<Vec<Duration>> {
    let mut stream = connect(host)?;
    let request = format!("GET /api/v1/jobs/{id}/events HTTP/1.1\r\nhost: {host}\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let (mut delays, mut is_stdout) = (Vec::new(), false);
    for line in BufReader::new(stream).lines() {
        let line = line?;
        match (line.split_once(": "), is_stdout) {
            (Some(("event", "done")), _) => return Ok(delays),
            (Some(("event", name)), _) => is_stdout = name == "stdout",
            (Some(("data", data)), true) => {
                let event: Value = serde_json::from_str(data)?;
                delays.extend(since(event["text"].as_str().unwrap_or_default())?);
            }
            _ => {}
        }
    }
    bail!("the stream ended before the job did")
}

/// How long ago each of these lines was printed.
fn since(lines: &str) -> Result<Vec<Duration>> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
    let read = |line: &str| Ok(now.saturating_sub(Duration::from_nanos(line.trim().parse()?)));
    lines.lines().map(read).collect()
}

impl Delays {
    fn quantile(&self, q: f64) -> f64 {
        let last = self.sorted.len().saturating_sub(1);
        self.sorted.get((last as f64 * q).round() as usize).map_or(0.0, Duration::as_secs_f64)
    }
}

pub fn as_table(all: &[Delays]) -> String {
    let row = |delays: &Delays| {
        let times = [0.5, 0.95, 0.99, 1.0].map(|q| ui::time(delays.quantile(q)));
        let mut cells = vec![delays.what.clone(), delays.sorted.len().to_string()];
        cells.extend(times);
        cells
    };
    let rows: Vec<_> = all.iter().map(row).collect();
    let table = ui::table(&["what", "lines", "p50", "p95", "p99", "max"], &rows, true);
    format!("{table}\nOne line every {INTERVAL} ms: the time from its printing to its arrival.\n")
}

pub fn as_json(all: &[Delays]) -> Value {
    let result = |delays: &Delays| {
        let ms = |q| delays.quantile(q) * 1e3;
        json!({
            "what": delays.what, "count": delays.sorted.len(),
            "p50_ms": ms(0.5), "p95_ms": ms(0.95), "p99_ms": ms(0.99), "max_ms": ms(1.0),
        })
    };
    json!({ "mode": "live", "interval_ms": INTERVAL, "results": all.iter().map(result).collect::<Vec<_>>() })
}
