//! What a script that writes down its own runs has written down.
//!
//! Each line is `what turn pid start`: the run `pid start` for this turn of its request has begun,
//! goes on (`tick`), or has come to its end. A run that was killed ends without saying so, so an overlap
//! shows in two ways: the new run sees the old one alive (`alive`), or the old one writes after the new
//! one has begun.

use std::{fs, path::Path};

/// The apply of a Script that keeps a ledger. It is long enough to be killed in the middle.
///
/// Its pid is read from /proc: two dollars in the arguments of a container become one.
pub(crate) const APPLY: &str = r#"
read -r pid rest < /proc/self/stat
me() { echo "$1 $TURN $pid $(started "$pid")" >> "$LEDGER"; }
started() { sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | cut -d ' ' -f 20; }
last=$(grep '^begin' "$LEDGER" 2>/dev/null | tail -n 1)
me begin
if [ -n "$last" ]; then
  set -- $last
  # Dead and not yet waited for is dead.
  if ! grep -q ') Z ' "/proc/$3/stat" && [ "$(started "$3")" = "$4" ]; then me alive; fi
fi
for tick in 1 2 3 4 5 6 7 8; do sleep 0.02; me tick; done
me end
"#;

/// The ledger of a script.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Ledger {
    /// Runs that have begun.
    pub(crate) begun: usize,
    /// Of those, runs that were killed.
    pub(crate) killed: usize,
    /// The turn of the last run that came to its end.
    pub(crate) last: Option<u32>,
}

impl Ledger {
    /// Reads a ledger; `Err` is the line that shows two runs at once.
    pub(crate) fn read(text: &str) -> Result<Self, String> {
        let mut ledger = Self::default();
        let mut running: Option<Vec<&str>> = None;
        for (number, line) in text.lines().enumerate() {
            let words: Vec<_> = line.split(' ').collect();
            let [what, turn, run @ ..] = words.as_slice() else {
                return Err(format!("line {}: {line:?} is torn", number + 1));
            };
            if run.len() != 2 || run.iter().any(|number| number.parse::<u64>().is_err()) {
                return Err(format!("line {}: {line:?} does not say who runs", number + 1));
            }
            match *what {
                "begin" => {
                    ledger.killed += usize::from(running.replace(run.to_vec()).is_some());
                    ledger.begun += 1;
                    continue;
                }
                "tick" | "end" if running.as_deref() == Some(run) => {}
                _ => return Err(format!("line {}: {line:?} while {running:?} runs", number + 1)),
            }
            if *what == "end" {
                running = None;
                ledger.last = turn.parse().ok();
            }
        }
        ledger.killed += usize::from(running.is_some());
        Ok(ledger)
    }

    /// The ledger in a file; an empty one before its first line.
    pub(crate) fn of(file: &Path) -> Self {
        let text = fs::read_to_string(file).unwrap_or_default();
        Self::read(&text).unwrap_or_else(|line| panic!("two runs at once: {line}\n{text}"))
    }
}

#[test]
fn a_ledger_tells_killed_runs_from_runs_at_once() {
    let killed = "begin 1 7 70\ntick 1 7 70\nbegin 1 8 80\ntick 1 8 80\nend 1 8 80\nbegin 2 9 90\n";
    let expected = Ledger { begun: 3, killed: 2, last: Some(1) };
    assert_eq!(Ledger::read(killed), Ok(expected));
    let late = "begin 1 7 70\nbegin 1 8 80\nend 1 7 70\n";
    assert!(Ledger::read(late).unwrap_err().starts_with("line 3"));
    let seen = "begin 1 7 70\nbegin 1 8 80\nalive 1 8 80\n";
    assert!(Ledger::read(seen).unwrap_err().starts_with("line 3"));
    let reused = "begin 1 7 70\nbegin 1 7 99\ntick 1 7 70\n";
    assert!(Ledger::read(reused).is_err());
}
