//! A container's log in the format that the kubelet reads, one record on each line: `<time> <stream> <F or P> <text>`.
//!
//! Holds the records and the file. [`container`](crate::container) delivers what a process writes.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use kubestream_apps::stdio::complain;

/// The longest text of a record, in bytes. A longer line continues in the next record.
const LONGEST: usize = 16 * 1024;

/// The log of one container, or nothing if it has none.
#[derive(Debug)]
pub(crate) struct Log {
    path: Option<PathBuf>,
    file: Mutex<Option<File>>,
}

impl Log {
    pub(crate) fn open(path: Option<PathBuf>) -> io::Result<Self> {
        let file = path.as_deref().map(open).transpose()?;
        Ok(Self { path, file: Mutex::new(file) })
    }

    pub(crate) fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// Opens the log anew, because the file was moved away.
    pub(crate) fn reopen(&self) -> io::Result<()> {
        let file = self.path.as_deref().map(open).transpose()?;
        *self.file.lock().unwrap_or_else(PoisonError::into_inner) = file;
        Ok(())
    }

    /// Writes records. If that fails, the log is reported and closed, and its container goes on.
    pub(crate) fn write(&self, records: &[u8]) {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(Err(error)) = file.as_mut().map(|file| file.write_all(records)) {
            complain(format_args!("cri: stopped writing the log {:?}: {error}", self.path));
            *file = None;
        }
    }
}

fn open(path: &Path) -> io::Result<File> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    File::options().append(true).create(true).open(path)
}

/// One output, cut into records.
#[derive(Debug)]
pub(crate) struct Records {
    stream: &'static str,
    line: Vec<u8>,
}

impl Records {
    /// Cuts `stdout` or `stderr`.
    pub(crate) fn of(stream: &'static str) -> Self {
        Self { stream, line: Vec::new() }
    }

    /// Returns the records that these bytes complete.
    pub(crate) fn push(&mut self, data: &[u8], now: SystemTime) -> Vec<u8> {
        let mut records = Vec::new();
        for piece in data.split_inclusive(|byte| *byte == b'\n') {
            let (text, ends) = piece.strip_suffix(b"\n").map_or((piece, false), |text| (text, true));
            let mut rest = text;
            while self.line.len() + rest.len() > LONGEST {
                let (fits, more) = rest.split_at(LONGEST - self.line.len());
                self.line.extend_from_slice(fits);
                self.record(&mut records, 'P', now);
                rest = more;
            }
            self.line.extend_from_slice(rest);
            if ends {
                self.record(&mut records, 'F', now);
            }
        }
        records
    }

    /// Returns the rest of a line without an end.
    pub(crate) fn finish(&mut self, now: SystemTime) -> Vec<u8> {
        let mut records = Vec::new();
        if !self.line.is_empty() {
            self.record(&mut records, 'F', now);
        }
        records
    }

    fn record(&mut self, records: &mut Vec<u8>, tag: char, now: SystemTime) {
        let time = humantime::format_rfc3339_nanos(now);
        records.extend_from_slice(format!("{time} {} {tag} ", self.stream).as_bytes());
        records.append(&mut self.line);
        records.push(b'\n');
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::new(1_700_000_000, 7)
    }

    #[test]
    fn a_line_is_a_record_however_it_comes() {
        let mut records = Records::of("stdout");
        assert_eq!(records.push(b"hel", now()), b"");
        let written = records.push(b"lo\n\nlast", now());
        let expected = "2023-11-14T22:13:20.000000007Z stdout F hello\n2023-11-14T22:13:20.000000007Z stdout F \n";
        assert_eq!(String::from_utf8_lossy(&written), expected);
        assert_eq!(records.finish(now()), b"2023-11-14T22:13:20.000000007Z stdout F last\n");
        assert_eq!(records.finish(now()), b"");
    }

    #[test]
    fn a_long_line_is_several_records_and_nothing_is_lost() {
        quickcheck::quickcheck(property as fn(Vec<u16>) -> bool);
        fn property(lengths: Vec<u16>) -> bool {
            let mut records = Records::of("stderr");
            let (mut sent, mut written) = (Vec::new(), Vec::new());
            for (number, length) in lengths.into_iter().enumerate() {
                let mut piece = vec![b'a' + (number % 26) as u8; usize::from(length)];
                piece.extend_from_slice(if number % 3 == 0 { b"\n" } else { b"" });
                written.extend(records.push(&piece, now()));
                sent.extend(piece);
            }
            written.extend(records.finish(now()));
            if !sent.ends_with(b"\n") && !sent.is_empty() {
                sent.push(b'\n');
            }
            let mut read: Vec<u8> = Vec::new();
            for record in written.split_inclusive(|byte| *byte == b'\n') {
                let mut parts = record.splitn(4, |byte| *byte == b' ').skip(2);
                let (tag, text) = (parts.next().unwrap(), parts.next().unwrap());
                assert!(text.len() <= LONGEST + 1);
                read.extend(if tag == b"P" { &text[..text.len() - 1] } else { text });
            }
            read == sent
        }
    }
}
