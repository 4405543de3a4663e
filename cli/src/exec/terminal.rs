//! The terminal that we are started in.

use std::io::{self, IsTerminal, stdin};

use meros_proto::message::exec::WindowSize;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};

/// Of a terminal that does not know its size.
const SIZE_DEFAULT: WindowSize = WindowSize {
    rows: 24,
    columns: 80,
};

/// Whether somebody types.
pub(crate) fn is_terminal() -> bool {
    stdin().is_terminal()
}

/// How large it is now.
pub(crate) fn size() -> WindowSize {
    let size = tcgetwinsize(stdin()).ok();
    let size = size.filter(|size| size.ws_row > 0 && size.ws_col > 0);
    size.map_or(SIZE_DEFAULT, |size| WindowSize {
        rows: size.ws_row,
        columns: size.ws_col,
    })
}

/// Every key goes to the other end as it is, as long as this lives.
pub(crate) struct Raw {
    before: Termios,
}

impl Raw {
    pub(crate) fn enter() -> io::Result<Self> {
        let before = tcgetattr(stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(stdin(), OptionalActions::Now, &raw)?;
        Ok(Self { before })
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // An error is a terminal that is gone.
        let _ = tcsetattr(stdin(), OptionalActions::Now, &self.before);
    }
}
