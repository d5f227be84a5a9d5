//! The terminal: taken over, given back as it was, whatever ends the program, and handed over while it is stopped.

use std::io::{self, BufWriter, IsTerminal, Stdout, Write, stdin, stdout};
use std::panic;
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use anyhow::{Context, bail};
use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::event::{DisableMouseCapture, EnableMouseCapture};
use ratatui::crossterm::terminal::{
    EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode, size,
};
use ratatui::crossterm::{cursor, execute};
use ratatui::layout::Rect;
use rustix::process::{Signal, getpid, kill_process};

use super::draw;
use super::look::Look;
use super::model::Model;

/// Whether the terminal is not as it was.
static IS_TAKEN: AtomicBool = AtomicBool::new(false);

/// What is written to a screen at once: a whole one of 300 by 80 with its colours.
const SCREEN_BYTES: usize = 256 * 1024;

/// A terminal that shows a whole screen; it is given back at the end.
pub(super) struct Screen {
    terminal: Terminal<CrosstermBackend<BufWriter<Stdout>>>,
    look: Look,
    has_mouse: bool,
}

impl Screen {
    /// Takes the terminal over.
    pub(super) fn open() -> anyhow::Result<Screen> {
        if !stdout().is_terminal() || !stdin().is_terminal() {
            bail!("it needs a terminal for its input and its output; `ttmem status --watch` writes anywhere");
        }
        if std::env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb") {
            bail!("TERM names no terminal that can be drawn on; `ttmem status --watch` needs none");
        }
        give_back_before_panics();
        take_over(false).context("the terminal cannot be set up")?;
        let backend = CrosstermBackend::new(BufWriter::with_capacity(SCREEN_BYTES, stdout()));
        let terminal =
            Terminal::new(backend).inspect_err(|_| give_back()).context("the terminal cannot be set up")?;
        Ok(Screen { terminal, look: Look::of_terminal(), has_mouse: false })
    }

    /// Columns and rows.
    pub(super) fn size() -> anyhow::Result<(u16, u16)> {
        size().context("the terminal does not say how large it is")
    }

    pub(super) fn draw(&mut self, model: &Model) -> anyhow::Result<()> {
        let look = self.look;
        self.terminal
            .draw(|frame| draw::draw(frame, model, look))
            .context("the terminal cannot be written")?;
        Ok(())
    }

    /// Asks to be told of the mouse, or no longer: then the terminal's own selecting and copying works.
    pub(super) fn set_mouse(&mut self, has_mouse: bool) -> anyhow::Result<()> {
        self.has_mouse = has_mouse;
        let mut out = stdout();
        let result =
            if has_mouse { execute!(out, EnableMouseCapture) } else { execute!(out, DisableMouseCapture) };
        result.context("the terminal cannot be written")
    }

    /// Stops this process until somebody lets it go on.
    pub(super) fn suspend(&mut self) -> anyhow::Result<()> {
        give_back();
        // It returns when the process goes on; whatever it says, the terminal is to be taken over again.
        let _ = kill_process(getpid(), Signal::STOP);
        self.take_over_again()
    }

    /// After a stop that was noticed or not: another program may have used the terminal in between.
    pub(super) fn take_over_again(&mut self) -> anyhow::Result<()> {
        give_back();
        take_over(self.has_mouse).context("the terminal cannot be set up")?;
        self.redraw()
    }

    /// Clears the screen and lets the next drawing write all of it.
    pub(super) fn redraw(&mut self) -> anyhow::Result<()> {
        // `Terminal::clear` would ask the terminal where the cursor is, and the answer would go to whoever reads the keys.
        let size = self.terminal.size().context("the terminal does not say how large it is")?;
        self.terminal.resize(Rect::from(size)).context("the terminal cannot be written")
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        give_back();
    }
}

fn take_over(has_mouse: bool) -> io::Result<()> {
    enable_raw_mode()?;
    IS_TAKEN.store(true, SeqCst);
    let mut out = stdout();
    let entered = execute!(out, EnterAlternateScreen, cursor::Hide);
    let entered = entered.and_then(|()| if has_mouse { execute!(out, EnableMouseCapture) } else { Ok(()) });
    entered.inspect_err(|_| give_back())
}

/// Makes the terminal what it was. Where that fails it is gone, and there is nobody to tell.
fn give_back() {
    if IS_TAKEN.swap(false, SeqCst) {
        let _ = execute!(stdout(), DisableMouseCapture, LeaveAlternateScreen, cursor::Show);
        let _ = stdout().flush();
        let _ = disable_raw_mode();
    }
}

/// A panic is told on the screen on which it can be read. It then ends the program, on whatever thread it was and in every profile.
fn give_back_before_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let tell = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            give_back();
            tell(panic);
            std::process::abort();
        }));
    });
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    #[ignore = "it ends its process; the test below starts it in a terminal of its own"]
    fn panics_on_a_screen() {
        let _screen = Screen::open().expect("a terminal");
        std::thread::spawn(|| panic!("on purpose")).join().expect_err("it panics");
    }

    #[test]
    fn a_panic_gives_the_terminal_back_before_it_is_told() {
        let program = std::env::current_exe().expect("this program");
        let test = "cli::top::terminal::tests::panics_on_a_screen";
        // The terminal's settings are written before and after.
        let script = format!(
            "stty -g; '{}' --ignored --exact --nocapture {test}; echo \"status $?\"; stty -g",
            program.display()
        );
        let mut command = Command::new("script");
        let output =
            command.args(["--quiet", "--return", "--command", &script, "/dev/null"]).env("TERM", "xterm");
        let output = output.output().expect("script runs");
        let told = String::from_utf8_lossy(&output.stdout).into_owned();
        let place = |what: &str| told.find(what).unwrap_or_else(|| panic!("no {what:?} in {told:?}"));
        let order =
            ["\x1b[?1049h", "\x1b[?25l", "\x1b[?1049l", "\x1b[?25h", "on purpose", "status 134"].map(place);
        assert!(order.is_sorted(), "{told:?}");
        let settings: Vec<_> = told.lines().filter(|line| line.matches(':').count() > 20).collect();
        assert_eq!(settings.len(), 2, "{told:?}");
        assert_eq!(settings[0], settings[1]);
    }
}
