//! Runs one program many times in one native sandbox and prints what a run costs.
//!
//! `cargo run --release -p gavel-sandbox --example rate -- 2000 /usr/bin/true`

use gavel_core::language::Scratch;
use gavel_core::{Bytes, Limits};
use gavel_sandbox::native::{Native, NativeOptions};
use gavel_sandbox::{Backend, Cancel, Collect, Command, OnOutputLimit};
use std::time::Instant;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let count: u32 = args.next().as_deref().unwrap_or("1000").parse()?;
    let argv: Vec<String> = args.collect();
    let native = Native::new(NativeOptions::default())?;
    let mut sandbox = native.open(0)?;
    let cancel = Cancel::new()?;
    let limits = Limits::standard();
    let command = Command {
        image: None,
        root: None,
        argv: if argv.is_empty() { vec!["/usr/bin/true".to_owned()] } else { argv },
        env: Vec::new(),
        stdin: b"3 4\n",
        live: None,
        files: Vec::new(),
        scratch: Scratch::for_run(&limits),
        limits,
        stderr_to_stdout: false,
        network: false,
        on_output_limit: OnOutputLimit::Stop,
        collect: Collect { patterns: Vec::new(), max_files: 0, max_total: Bytes(0) },
    };
    let first = sandbox.run(&command, &cancel, &mut |_, _| {})?;
    print!("{}{}", String::from_utf8_lossy(&first.stdout), String::from_utf8_lossy(&first.stderr));
    println!("{:?}, CPU {:?}, wall {:?}, peak {}", first.exit, first.cpu, first.wall, first.peak_memory);
    let mut times = Vec::new();
    let start = Instant::now();
    for _ in 0..count {
        let begin = Instant::now();
        let facts = sandbox.run(&command, &cancel, &mut |_, _| {})?;
        assert_eq!(facts.exit, first.exit);
        times.push(begin.elapsed());
    }
    let all = start.elapsed();
    times.sort();
    println!(
        "{count} runs: {:.0}/s, median {:?}, p99 {:?}",
        f64::from(count) / all.as_secs_f64(),
        times[times.len() / 2],
        times[times.len() * 99 / 100]
    );
    Ok(())
}
