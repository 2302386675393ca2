//! What the machine is, and how much of it other processes took.
//!
//! Reads `/proc`. Does not judge: what has no `/proc` is unknown, and never idle.

use std::fmt;
use std::fs::read_to_string;
use std::path::PathBuf;
use std::sync::LazyLock;
use std::thread::available_parallelism;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};

use super::Outcome;

/// `/proc` counts in hundredths of a second on every architecture.
const TICKS: f64 = 100.0;

/// A moment, with the seconds of CPU time until then.
#[derive(Clone, Copy, Debug)]
struct Used {
    at: Instant,
    /// Of everything that ran, without what only carried packets.
    all: f64,
    /// Of this process, and of its children that have ended.
    own: f64,
}

impl Used {
    fn now() -> Option<Self> {
        let all = busy(&read_to_string("/proc/stat").ok()?, *INTERRUPTS_COUNT)?;
        let children = seconds_of(&read_to_string("/proc/self/stat").ok()?, ENDED_CHILDREN)?;
        // A thread that has gone is none.
        let stat_of = |thread: &PathBuf| read_to_string(thread.join("stat")).ok();
        let packets = PACKET_THREADS.iter().filter_map(|thread| seconds_of(&stat_of(thread)?, ITSELF)).sum::<f64>();
        Some(Self { at: Instant::now(), all: all - packets, own: process_cpu().as_secs_f64() + children })
    }

    /// How many cores others took since. The kernel's figures are coarse, so it may be a little below zero.
    fn others_since(&self, before: &Self) -> f64 {
        let seconds = self.at.duration_since(before.at).as_secs_f64().max(1.0 / TICKS);
        ((self.all - before.all) - (self.own - before.own)) / seconds
    }
}

/// Runs `work`, and says how many cores other processes took meanwhile: `None` without `/proc`. Children of this
/// process count as its own if they end before `work` does.
pub fn beside<T>(work: impl FnOnce() -> Outcome<T>) -> Outcome<(T, Option<f64>)> {
    let before = Used::now();
    let done = work()?;
    let others = before.and_then(|before| Some(Used::now()?.others_since(&before)));
    Ok((done, others))
}

/// The CPU time of this process.
pub fn process_cpu() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Whether the kernel adds the time of interrupts to the process that they interrupt. Then that time is our own where
/// loopback TCP caused it, and belongs to all time, too. Else it is nobody's, and is left out.
static INTERRUPTS_COUNT: LazyLock<bool> = LazyLock::new(|| {
    let release = read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let config = read_to_string(format!("/boot/config-{}", release.trim())).unwrap_or_default();
    !keeps_interrupts_apart(&config)
});

/// From the text of the kernel's configuration.
fn keeps_interrupts_apart(config: &str) -> bool {
    config.lines().any(|line| line == "CONFIG_IRQ_TIME_ACCOUNTING=y")
}

/// The seconds that all processors worked, from the text of `/proc/stat`. What the host took away counts, since it was
/// not there for us.
fn busy(stat: &str, interrupts_count: bool) -> Option<f64> {
    let mut words = stat.lines().find(|line| line.starts_with("cpu "))?.split_whitespace().skip(1);
    let mut next = || words.next()?.parse::<u64>().ok();
    let [user, nice, system, _idle, _waiting, interrupts, soft, stolen] =
        [next()?, next()?, next()?, next()?, next()?, next()?, next()?, next().unwrap_or(0)];
    let interrupted = if interrupts_count { interrupts + soft } else { 0 };
    Some((user + nice + system + interrupted + stolen) as f64 / TICKS)
}

/// Where the time of a process begins in its `stat`, behind the name.
const ITSELF: usize = 11;
/// Where that of its children begins, of those that were waited for.
const ENDED_CHILDREN: usize = 13;

/// The seconds in user space and in the kernel, from the text of `/proc/…/stat`.
fn seconds_of(stat: &str, from: usize) -> Option<f64> {
    // The name stands in brackets, and may have spaces and brackets itself.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut ticks = fields.split_whitespace().skip(from).take(2).map(str::parse::<u64>);
    Some((ticks.next()?.ok()? + ticks.next()?.ok()?) as f64 / TICKS)
}

/// The kernel's threads that carry packets when there are many. On loopback these are ours, and so are not the work of
/// others. Inside a container there may be none to see.
static PACKET_THREADS: LazyLock<Vec<PathBuf>> = LazyLock::new(|| {
    let all = std::fs::read_dir("/proc").into_iter().flatten().flatten().map(|entry| entry.path());
    let is_one = |path: &PathBuf| read_to_string(path.join("comm")).is_ok_and(|name| name.starts_with("ksoftirqd/"));
    all.filter(is_one).collect()
});

/// The load average of the last minute.
pub fn average() -> Option<f64> {
    first_number(&read_to_string("/proc/loadavg").ok()?)
}

fn first_number(text: &str) -> Option<f64> {
    text.split_whitespace().next()?.parse().ok()
}

/// Under which conditions a group was measured: what the head of each table says.
#[derive(Clone, Debug)]
pub struct Conditions {
    /// The day, as in 2026-11-30.
    pub date: String,
    /// The number of rounds.
    pub rounds: usize,
    /// The load average before the first round and after the last. This process is a part of it.
    pub load: Option<(f64, f64)>,
    /// The cores that other processes took: the median of all samples.
    pub others: Option<f64>,
}

impl fmt::Display for Conditions {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = if self.rounds == 1 { "" } else { "s" };
        write!(out, "{} round{plural}, {}, {}, ", self.rounds, self.date, machine())?;
        match (self.load, self.others) {
            (Some((before, after)), Some(others)) => {
                let others = others.max(0.0);
                write!(out, "load {before:.1} before and {after:.1} after, {others:.1} cores of other work")
            }
            _ => write!(out, "load unknown"),
        }
    }
}

/// The conditions of several groups in a few words, for a chart: the day of the first, and the most of other work.
pub fn note<'a>(all: impl IntoIterator<Item = &'a Conditions>) -> String {
    let all: Vec<&Conditions> = all.into_iter().collect();
    let Some(first) = all.first() else { return String::new() };
    let others: Option<Vec<f64>> = all.iter().map(|conditions| conditions.others).collect();
    let beside = others.map_or_else(
        || "load unknown".to_owned(),
        |others| format!("beside {:.1} cores of other work", others.into_iter().fold(0.0, f64::max)),
    );
    format!("{}, {}, {beside}", first.date, machine())
}

/// The machine in a few words: the kernel, the processor and the compiler.
fn machine() -> String {
    let kernel = read_to_string("/proc/sys/kernel/osrelease")
        .map_or_else(|_| std::env::consts::OS.to_owned(), |release| format!("Linux {}", release.trim()));
    let info = read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = model(&info).unwrap_or("an unknown processor");
    let cores = available_parallelism().map_or(0, usize::from);
    format!("{kernel}, {cores} cores of {model}, Rust {}", env!("BENCH_RUST_VERSION"))
}

fn model(info: &str) -> Option<&str> {
    let line = info.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim())
}

/// Today in UTC.
pub fn today() -> String {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    date(seconds / 86_400)
}

/// The date so many days after 1970-01-01.
fn date(days: u64) -> String {
    let leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let (mut year, mut left) = (1970, days);
    while left >= 365 + u64::from(leap(year)) {
        left -= 365 + u64::from(leap(year));
        year += 1;
    }
    let february = 28 + u64::from(leap(year));
    let mut month = 1;
    for days in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if left < days {
            break;
        }
        left -= days;
        month += 1;
    }
    format!("{year}-{month:02}-{:02}", left + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &str = "cpu  2000 300 400 99999 88888 5 60 7 1000 0\ncpu0 1 2 3 4 5 6 7 8 9 10\nintr 1 2 3\n";

    #[test]
    fn busy_is_all_but_idle_and_waiting_and_counts_guests_once() {
        assert_eq!(busy(STAT, true), Some(27.72));
    }

    #[test]
    fn interrupts_are_nobodys_where_the_kernel_keeps_them_apart() {
        assert_eq!(busy(STAT, false), Some(27.07));
        assert!(keeps_interrupts_apart("CONFIG_HZ=250\nCONFIG_IRQ_TIME_ACCOUNTING=y\n"));
        assert!(!keeps_interrupts_apart("# CONFIG_IRQ_TIME_ACCOUNTING is not set\n"));
        assert!(!keeps_interrupts_apart(""));
    }

    #[test]
    fn an_old_kernel_has_no_stolen_time() {
        assert_eq!(busy("cpu  100 0 0 1 1 0 0\n", true), Some(1.0));
    }

    #[test]
    fn what_is_not_proc_stat_is_unknown() {
        for text in ["", "cpu0 1 2 3 4 5 6 7 8\n", "cpu  1 2 3\n", "cpu  a b c d e f g h\n"] {
            assert_eq!(busy(text, true), None, "{text:?}");
        }
    }

    #[test]
    fn the_times_of_a_process_stand_behind_any_name() {
        let stat = "42 (a) b (c)) S 1 2 3 4 5 6 7 8 9 10 100 20 250 50 20 0";
        assert_eq!(seconds_of(stat, ITSELF), Some(1.2));
        assert_eq!(seconds_of(stat, ENDED_CHILDREN), Some(3.0));
        assert_eq!(seconds_of("42 (a) S 1 2 3", ITSELF), None);
        assert_eq!(seconds_of("nothing", ITSELF), None);
    }

    #[test]
    fn own_work_and_that_of_children_is_not_other_work() {
        let at = Instant::now();
        let before = Used { at, all: 100.0, own: 10.0 };
        let now = Used { at: at + Duration::from_secs(2), all: 104.0, own: 11.4 };
        assert!((now.others_since(&before) - 1.3).abs() < 1e-9);
    }

    #[test]
    fn the_head_says_the_load_or_that_it_is_unknown() {
        let known = Conditions { date: "2026-11-30".into(), rounds: 3, load: Some((1.25, 4.0)), others: Some(0.62) };
        let head = known.to_string();
        assert!(head.starts_with("3 rounds, 2026-11-30, "), "{head}");
        assert!(head.ends_with("load 1.2 before and 4.0 after, 0.6 cores of other work"), "{head}");
        assert!(head.contains("Rust 1."), "{head}");
        let unknown = Conditions { others: None, ..known };
        assert!(unknown.to_string().ends_with(", load unknown"));
    }

    #[test]
    fn a_note_has_the_highest_load_or_none() {
        let one = Conditions { date: "2026-11-30".into(), rounds: 3, load: None, others: Some(0.1) };
        let other = Conditions { others: Some(1.4), ..one.clone() };
        let unknown = Conditions { others: None, ..one.clone() };
        assert!(note([&one, &other]).ends_with(", beside 1.4 cores of other work"));
        assert!(note([&one, &unknown]).ends_with(", load unknown"));
        assert_eq!(note([]), "");
    }

    #[test]
    fn the_model_and_the_load_are_read() {
        assert_eq!(model("processor\t: 0\nmodel name\t: AMD EPYC\n"), Some("AMD EPYC"));
        assert_eq!(model("Hardware : a board\n"), None);
        assert_eq!(first_number("1.28 2.19 3.55 1/100 30569\n"), Some(1.28));
    }

    #[test]
    fn days_become_dates() {
        for (days, expected) in [
            (0, "1970-01-01"),
            (11_016, "2000-02-29"),
            (11_017, "2000-03-01"),
            (19_722, "2023-12-31"),
            (20_787, "2026-11-30"),
        ] {
            assert_eq!(date(days), expected);
        }
    }
}
