//! What a command may use: asked for, defaulted per language, capped by the operator.

use crate::units::Bytes;
use std::time::Duration;

/// Every limit of one command. There is no "unlimited".
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Limits {
    /// CPU time of all processes together.
    pub cpu_time: Duration,
    /// Time from start to end.
    pub wall_time: Duration,
    /// Memory of all processes together, page cache and kernel memory included.
    pub memory: Bytes,
    pub stack: Bytes,
    /// Processes and threads alive at once.
    pub processes: u32,
    /// Bytes kept of stdout, and as many of stderr.
    pub output: Bytes,
    /// Size of one written file.
    pub file_size: Bytes,
}

/// The same as a client asks for it; `None` means the language's default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LimitsRequest {
    pub cpu_time: Option<Duration>,
    pub wall_time: Option<Duration>,
    pub memory: Option<Bytes>,
    pub stack: Option<Bytes>,
    pub processes: Option<u32>,
    pub output: Option<Bytes>,
    pub file_size: Option<Bytes>,
}

/// A limit that was refused: which one, and the range it may have, in the API's unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutOfRange {
    pub field: &'static str,
    pub asked: u64,
    pub min: u64,
    pub max: u64,
    pub unit: &'static str,
}

impl Limits {
    /// The wall limit that goes with a CPU limit when nobody names one: room for a loaded machine
    /// and for waiting, but an end to sleeping.
    pub fn wall_for(cpu: Duration) -> Duration {
        (cpu * 3).max(cpu + Duration::from_secs(3))
    }

    /// Fills what was not asked for and refuses what is above the cap.
    pub fn resolve(request: &LimitsRequest, default: &Limits, cap: &Limits) -> Result<Limits, Vec<OutOfRange>> {
        let mut wrong = Vec::new();
        let mut check = |field, asked: Option<u64>, default: u64, min: u64, max: u64, unit| {
            let value = asked.unwrap_or(default.min(max));
            if value < min || value > max {
                wrong.push(OutOfRange { field, asked: value, min, max, unit });
            }
            value
        };
        let ms = |d: Duration| d.as_millis() as u64;
        let cpu = check("cpu_time_ms", request.cpu_time.map(ms), ms(default.cpu_time), 1, ms(cap.cpu_time), "ms");
        // A CPU limit that was asked for brings its wall limit along; an explicit wall limit stands.
        let wall_default = ms(request.cpu_time.map_or(default.wall_time, Self::wall_for));
        let wall = check("wall_time_ms", request.wall_time.map(ms), wall_default, 1, ms(cap.wall_time), "ms");
        let kib = |b: Bytes| b.as_kib();
        let memory = check("memory_kb", request.memory.map(kib), kib(default.memory), 2048, kib(cap.memory), "KiB");
        let stack = check("stack_kb", request.stack.map(kib), kib(default.stack), 64, kib(cap.stack), "KiB");
        let processes = check(
            "processes",
            request.processes.map(u64::from),
            u64::from(default.processes),
            1,
            u64::from(cap.processes),
            "processes",
        );
        let output = check("output_kb", request.output.map(kib), kib(default.output), 0, kib(cap.output), "KiB");
        let file_size =
            check("file_size_kb", request.file_size.map(kib), kib(default.file_size), 0, kib(cap.file_size), "KiB");
        if !wrong.is_empty() {
            return Err(wrong);
        }
        Ok(Limits {
            cpu_time: Duration::from_millis(cpu),
            wall_time: Duration::from_millis(wall),
            memory: Bytes::kib(memory),
            stack: Bytes::kib(stack),
            processes: processes as u32,
            output: Bytes::kib(output),
            file_size: Bytes::kib(file_size),
        })
    }

    /// The run limits that hold where neither a language nor the operator says otherwise.
    pub fn standard() -> Limits {
        Limits {
            cpu_time: Duration::from_secs(2),
            wall_time: Self::wall_for(Duration::from_secs(2)),
            memory: Bytes::mib(256),
            stack: Bytes::mib(64),
            processes: 64,
            output: Bytes::mib(1),
            file_size: Bytes::mib(64),
        }
    }

    /// The highest values a client may ask for where the operator does not say otherwise.
    pub fn standard_cap() -> Limits {
        Limits {
            cpu_time: Duration::from_secs(15),
            wall_time: Duration::from_secs(60),
            memory: Bytes::mib(1024),
            stack: Bytes::mib(1024),
            processes: 512,
            output: Bytes::mib(16),
            file_size: Bytes::mib(256),
        }
    }

    /// The limits of a compile command.
    pub fn standard_compile() -> Limits {
        Limits {
            cpu_time: Duration::from_secs(10),
            wall_time: Duration::from_secs(30),
            memory: Bytes::mib(512),
            stack: Bytes::mib(64),
            processes: 128,
            output: Bytes::kib(64),
            file_size: Bytes::mib(64),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(request: LimitsRequest) -> Result<Limits, Vec<OutOfRange>> {
        Limits::resolve(&request, &Limits::standard(), &Limits::standard_cap())
    }

    #[test]
    fn nothing_asked_gives_the_defaults() {
        assert_eq!(resolve(LimitsRequest::default()), Ok(Limits::standard()));
    }

    #[test]
    fn a_higher_cpu_limit_raises_the_wall_limit_with_it() {
        let limits = resolve(LimitsRequest { cpu_time: Some(Duration::from_secs(10)), ..Default::default() }).unwrap();
        assert_eq!(limits.wall_time, Duration::from_secs(30));
    }

    #[test]
    fn a_wall_limit_below_a_second_means_that_and_not_infinity() {
        let limits =
            resolve(LimitsRequest { wall_time: Some(Duration::from_millis(5)), ..Default::default() }).unwrap();
        assert_eq!(limits.wall_time, Duration::from_millis(5));
    }

    #[test]
    fn zero_and_above_the_cap_are_refused_by_name() {
        let wrong = resolve(LimitsRequest {
            cpu_time: Some(Duration::ZERO),
            memory: Some(Bytes::mib(4096)),
            ..Default::default()
        })
        .unwrap_err();
        let fields: Vec<_> = wrong.iter().map(|w| w.field).collect();
        assert_eq!(fields, ["cpu_time_ms", "memory_kb"]);
        assert_eq!(wrong[1].max, 1024 * 1024);
    }

    #[test]
    fn a_default_above_the_cap_is_lowered_to_it() {
        let mut cap = Limits::standard_cap();
        cap.memory = Bytes::mib(128);
        let limits = Limits::resolve(&LimitsRequest::default(), &Limits::standard(), &cap).unwrap();
        assert_eq!(limits.memory, Bytes::mib(128));
    }
}
