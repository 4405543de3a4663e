//! Counting words, and the files in which counts travel from map to reduce.
//!
//! A word is a run of 2 to 40 ASCII letters, in lower case; longer runs are data, not words.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use walkdir::WalkDir;

const WORD_BYTES_MIN: usize = 2;
const WORD_BYTES_MAX: usize = 40;

/// What counts as source text.
const EXTENSIONS: [&str; 14] = [
    "rs", "toml", "md", "txt", "c", "cc", "cpp", "h", "hpp", "py", "sh", "pl", "s", "asm",
];

/// How often each word occurs.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts(HashMap<Box<[u8]>, u64>);

impl Counts {
    /// Adds every word of the source texts below a directory.
    pub(crate) fn add_dir(&mut self, dir: &Path) -> io::Result<()> {
        for entry in WalkDir::new(dir) {
            let entry = entry.map_err(io::Error::from)?;
            let extension = entry
                .path()
                .extension()
                .and_then(|e| e.to_str())
                .unwrap_or_default();
            if entry.file_type().is_file() && EXTENSIONS.contains(&extension) {
                self.add_text(File::open(entry.path())?)?;
            }
        }
        Ok(())
    }

    /// Adds every word of a text. Reads piece by piece: the memory of a task is limited.
    fn add_text(&mut self, mut text: impl Read) -> io::Result<()> {
        let mut piece = vec![0; 64 * 1024];
        // Of the word that is being read; its letters beyond the bound are only counted.
        let (mut word, mut length) = ([0; WORD_BYTES_MAX], 0);
        loop {
            let read = text.read(&mut piece)?;
            for byte in &piece[..read] {
                if byte.is_ascii_alphabetic() {
                    if let Some(place) = word.get_mut(length) {
                        *place = byte.to_ascii_lowercase();
                    }
                    length += 1;
                } else {
                    self.add_word(&word, length);
                    length = 0;
                }
            }
            if read == 0 {
                self.add_word(&word, length);
                return Ok(());
            }
        }
    }

    fn add_word(&mut self, word: &[u8; WORD_BYTES_MAX], length: usize) {
        if (WORD_BYTES_MIN..=WORD_BYTES_MAX).contains(&length) {
            self.add(&word[..length], 1);
        }
    }

    fn add(&mut self, word: &[u8], count: u64) {
        match self.0.get_mut(word) {
            Some(sum) => *sum += count,
            None => {
                self.0.insert(word.into(), count);
            }
        }
    }

    /// Adds what [`Counts::write`] or [`Counts::write_parts`] wrote.
    pub(crate) fn add_file(&mut self, path: &Path) -> io::Result<()> {
        let damaged = || io::Error::other(format!("{} is damaged", path.display()));
        let mut lines = BufReader::new(File::open(path)?);
        let mut line = Vec::new();
        while lines.read_until(b'\n', &mut line)? > 0 {
            let text = std::str::from_utf8(&line).map_err(|_| damaged())?;
            let (word, count) = text.trim_end().split_once(' ').ok_or_else(damaged)?;
            self.add(word.as_bytes(), count.parse().map_err(|_| damaged())?);
            line.clear();
        }
        Ok(())
    }

    /// Writes all counts to one file.
    pub(crate) fn write(&self, path: &Path) -> io::Result<()> {
        self.write_where(path, |_| true)
    }

    /// Writes the counts to as many files as there are parts, each word to the one of its hash.
    pub(crate) fn write_parts(&self, prefix: &Path, parts: u32) -> io::Result<()> {
        (0..parts).try_for_each(|part| {
            self.write_where(&part_path(prefix, part), |word| hash(word) % parts == part)
        })
    }

    /// Written beside and renamed: a task that is killed midway leaves no half file.
    fn write_where(&self, path: &Path, wanted: impl Fn(&[u8]) -> bool) -> io::Result<()> {
        let beside = path.with_extension(format!("{}.new", std::process::id()));
        let mut out = BufWriter::new(File::create(&beside)?);
        for (word, count) in self.0.iter().filter(|(word, _)| wanted(word)) {
            out.write_all(word)?;
            writeln!(out, " {count}")?;
        }
        out.into_inner()?;
        fs::rename(&beside, path)
    }

    /// The most frequent words, the most frequent first.
    pub(crate) fn top(&self, count: usize) -> Vec<(String, u64)> {
        let mut all: Vec<_> = self.0.iter().collect();
        all.sort_unstable_by(|a, b| b.1.cmp(a.1).then(a.0.cmp(b.0)));
        let text = |word: &[u8]| String::from_utf8_lossy(word).into_owned();
        all.into_iter()
            .take(count)
            .map(|(word, count)| (text(word), *count))
            .collect()
    }

    /// All occurrences of all words.
    pub(crate) fn total(&self) -> u64 {
        self.0.values().sum()
    }

    /// How many words there are.
    pub(crate) fn distinct(&self) -> usize {
        self.0.len()
    }
}

/// The file of one part.
pub(crate) fn part_path(prefix: &Path, part: u32) -> PathBuf {
    let mut path = prefix.as_os_str().to_owned();
    path.push(format!(".part{part}"));
    PathBuf::from(path)
}

/// FNV-1a: every task must send a word to the same part.
fn hash(word: &[u8]) -> u32 {
    word.iter().fold(0x811c_9dc5, |hash, byte| {
        (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_runs_of_letters_in_lower_case_also_across_pieces() {
        let long = "x".repeat(WORD_BYTES_MAX + 1);
        // The word that spans the border of two pieces.
        let padding = " ".repeat(64 * 1024 - 2);
        let text = format!("{padding}Hello, hello_world2go! a {long} {}", &long[1..]);
        let mut counts = Counts::default();
        counts.add_text(text.as_bytes()).expect("in memory");
        let words = [("hello", 2), ("go", 1), ("world", 1), (&long[1..], 1)];
        assert_eq!(
            counts.top(9),
            words.map(|(word, count)| (word.to_owned(), count))
        );
        assert_eq!((counts.total(), counts.distinct()), (5, 4));
    }

    #[test]
    fn parts_add_up_to_the_whole() {
        let dir = tempfile::tempdir().expect("a directory");
        let source = dir.path().join("src");
        fs::create_dir(&source).expect("made");
        let text: String = (0..5_000_u32)
            .map(|n| format!("w{} ", to_word(n % 1_999)))
            .collect();
        fs::write(source.join("a.rs"), text).expect("written");
        fs::write(source.join("b.bin"), "not counted").expect("written");
        let mut whole = Counts::default();
        whole.add_dir(&source).expect("counted");
        let prefix = dir.path().join("map-0000");
        whole.write_parts(&prefix, 4).expect("written");
        let mut sum = Counts::default();
        for part in 0..4 {
            let before = sum.distinct();
            sum.add_file(&part_path(&prefix, part)).expect("read");
            assert!(sum.distinct() > before + 100, "part {part} has its share");
        }
        assert_eq!(sum, whole);
        assert_eq!((sum.distinct(), sum.total()), (1_999, 5_000));
        fs::write(&prefix, "word without count\n").expect("written");
        assert!(sum.add_file(&prefix).is_err());
    }

    /// A number in letters.
    fn to_word(number: u32) -> String {
        number
            .to_string()
            .bytes()
            .map(|digit| char::from(digit - b'0' + b'a'))
            .collect()
    }
}
