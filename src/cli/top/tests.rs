//! The screens that the model and the drawing make together, against committed ones.

use std::fs;
use std::path::Path;

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::buffer::{Buffer, Cell};
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers, MouseButton, MouseEvent, MouseEventKind};
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier};

use super::invented::{self, NOW};
use super::look::Look;
use super::model::{Model, Overlay, Panel, View, Wish};
use super::news::{News, Picture};

const LOOK: Look = Look { color: true, unicode: true };

/// A model that has looked thirty times, with the last process leaking.
fn model(width: u16, height: u16, devices: u16, processes: u32) -> Model {
    let mut model = Model::new(Rect { x: 0, y: 0, width, height }, 1.0, NOW);
    for look in 0..30 {
        let mut picture = invented::picture(devices, processes);
        for memory in picture.devices.devices.iter_mut().flat_map(|device| &mut device.memory) {
            memory.usage_bytes = memory.usage_bytes / 30 * (look + 1);
        }
        hear(&mut model, picture);
    }
    model.hear(News::Leaks(Ok(invented::leaks())));
    model
}

fn hear(model: &mut Model, picture: Picture) {
    model.hear(News::Picture(Box::new(picture)));
}

fn press(model: &mut Model, keys: &[KeyCode]) -> Wish {
    keys.iter()
        .map(|key| model.press(KeyEvent::new(*key, KeyModifiers::NONE)))
        .last()
        .unwrap_or(Wish::Nothing)
}

fn write(model: &mut Model, text: &str) {
    for letter in text.chars() {
        press(model, &[KeyCode::Char(letter)]);
    }
}

fn drawn(model: &Model, look: Look) -> Buffer {
    let backend = TestBackend::new(model.area.width, model.area.height);
    let mut terminal = Terminal::new(backend).expect("a terminal that cannot fail");
    terminal.draw(|frame| super::draw::draw(frame, model, look)).expect("a terminal that cannot fail");
    terminal.backend().buffer().clone()
}

/// A screen as lines; what a wide character covers is not there twice.
fn text(buffer: &Buffer) -> String {
    let mut text = String::new();
    for y in 0..buffer.area.height {
        let mut line = String::new();
        let mut x = 0;
        while x < buffer.area.width {
            let symbol = buffer[(x, y)].symbol();
            line.push_str(symbol);
            x += (ratatui::text::Span::raw(symbol).width() as u16).max(1);
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

fn seen(model: &Model) -> String {
    text(&drawn(model, LOOK))
}

/// Compares with a committed file, or writes it.
#[track_caller]
fn check(name: &str, told: &str) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&file, told).expect("a file of ours");
    }
    let expected = fs::read_to_string(&file).unwrap_or_default();
    assert!(told == expected, "{name} differs; UPDATE_GOLDEN=1 writes it anew:\n{told}");
}

#[track_caller]
fn check_screen(name: &str, model: &Model, look: Look) {
    check(&format!("tests/recorded/top/{name}.txt"), &text(&drawn(model, look)));
}

#[test]
fn the_overview_at_several_sizes() {
    check_screen("overview-80x24", &model(80, 24, 2, 4), LOOK);
    check_screen("overview-120x40", &model(120, 40, 8, 12), LOOK);
    check_screen("overview-300x80", &model(300, 80, 32, 100), LOOK);
    check_screen("overview-40x8", &model(40, 8, 2, 4), LOOK);
    check_screen("overview-ascii", &model(80, 24, 2, 4), Look { color: false, unicode: false });
}

#[test]
fn the_other_views() {
    let mut model = model(100, 24, 2, 4);
    press(&mut model, &[KeyCode::Tab, KeyCode::Down, KeyCode::Enter]);
    assert_eq!(model.view, View::Device(1));
    check_screen("device-100x24", &model, LOOK);
    press(&mut model, &[KeyCode::Down, KeyCode::Esc, KeyCode::Home, KeyCode::Enter]);
    assert_eq!(model.wanted().buffers_of, Some(4000));
    model.hear(News::Buffers { pid: 4000, told: Ok(invented::buffers(30)) });
    check_screen("process-100x24", &model, LOOK);
    press(&mut model, &[KeyCode::Esc, KeyCode::Char('?')]);
    assert_eq!(model.wanted().buffers_of, None);
    check_screen("help-100x24", &model, LOOK);
    press(&mut model, &[KeyCode::Esc, KeyCode::Char('s')]);
    check_screen("sort-100x24", &model, LOOK);
}

#[test]
fn the_screen_in_the_documentation() {
    let mut model = model(110, 16, 4, 7);
    let mut picture = invented::picture(4, 7);
    for process in picture.processes.iter_mut().filter(|process| !process.process.is_ascii()) {
        process.process = "whisper-eval".to_owned();
    }
    hear(&mut model, picture);
    press(&mut model, &[KeyCode::Down]);
    check("docs/images/top.svg", &svg(&drawn(&model, LOOK)));
}

#[test]
fn no_daemon_is_said_and_awaited() {
    let mut model = Model::new(Rect { x: 0, y: 0, width: 80, height: 24 }, 1.0, NOW);
    assert!(seen(&model).contains("Waiting for a daemon"));
    model.hear(News::Lost("no daemon answers at 127.0.0.1:8080; start one with `ttmem serve`".to_owned()));
    assert!(seen(&model).contains("start one with `ttmem serve`"), "{}", seen(&model));
    hear(&mut model, invented::picture(1, 1));
    assert!(seen(&model).contains("llama-serve"));
    // One that goes leaves its last picture, with its age.
    model.now += 7.0;
    model.hear(News::Lost("it is gone".to_owned()));
    let told = seen(&model);
    assert!(
        told.contains("7s old: it is gone") && told.contains("OLD") && told.contains("llama-serve"),
        "{told}"
    );
    model.now = NOW;
    hear(&mut model, invented::picture(1, 1));
    assert!(!seen(&model).contains("OLD"));
}

#[test]
fn a_picture_that_gets_old_is_called_old() {
    let mut model = model(80, 24, 1, 1);
    model.now += 4.0;
    assert!(seen(&model).contains("live"));
    model.now += 2.0;
    assert!(seen(&model).contains("OLD"), "{}", seen(&model));
    let doubt = Some("the daemon does not answer".to_owned());
    hear(&mut model, Picture { doubt, ..invented::picture(1, 1) });
    assert!(seen(&model).contains("old: the daemon does not answer"), "{}", seen(&model));
}

#[test]
fn a_screen_that_is_too_small_says_so_and_none_is_too_large() {
    for (width, height) in [(39, 24), (80, 7), (1, 1), (20, 3)] {
        let model = model(width, height, 2, 4);
        let told = seen(&model);
        assert!(width < 20 || told.contains("This terminal has"), "{told}");
    }
    for (width, height) in [(40, 8), (41, 9), (79, 23), (133, 50), (300, 80), (500, 9), (45, 300)] {
        let mut model = model(width, height, 32, 50);
        for keys in ["?", "?", "s", "\n", "t", "/x", "\n", "G", "\n"] {
            write(&mut model, keys);
            drawn(&model, LOOK);
        }
    }
}

#[test]
fn a_size_that_the_model_has_not_heard_of_is_drawn_all_the_same() {
    let mut model = model(120, 40, 32, 50);
    write(&mut model, "G");
    for (width, height) in [(80, 24), (300, 80), (40, 8)] {
        let mut terminal =
            Terminal::new(TestBackend::new(width, height)).expect("a terminal that cannot fail");
        terminal.draw(|frame| super::draw::draw(frame, &model, LOOK)).expect("a terminal that cannot fail");
        assert!(text(terminal.backend().buffer()).contains("F1Help"));
    }
}

#[test]
fn ten_thousand_processes_are_as_easy_as_ten() {
    let mut model = model(80, 24, 1, 10_000);
    press(&mut model, &[KeyCode::End]);
    // The last one holds least.
    assert!(seen(&model).contains("13999"), "{}", seen(&model));
    press(&mut model, &[KeyCode::Char('N'), KeyCode::Home]);
    assert!(seen(&model).contains("4000 "), "{}", seen(&model));
}

#[test]
fn the_cursor_stays_with_its_process() {
    let mut model = model(80, 24, 1, 4);
    press(&mut model, &[KeyCode::Down]);
    assert_eq!(model.process_rows[model.processes.selected].pid, 4001);
    press(&mut model, &[KeyCode::Char('I')]);
    assert_eq!(model.process_rows[model.processes.selected].pid, 4001);
    // Its end leaves the cursor where it was.
    let mut picture = invented::picture(1, 4);
    picture.processes.remove(1);
    hear(&mut model, picture);
    assert_eq!(model.processes.selected, 2);
}

#[test]
fn a_filter_is_written_kept_and_ended() {
    let mut model = model(80, 24, 2, 4);
    write(&mut model, "/llama");
    assert!(seen(&model).contains("Filter: llama_"), "{}", seen(&model));
    assert_eq!(model.process_rows.len(), 1);
    press(&mut model, &[KeyCode::Enter]);
    assert_eq!((model.process_rows.len(), &model.overlay), (1, &Overlay::None));
    // Letters are text while it is written, and another one is given up with Esc.
    write(&mut model, "/q");
    assert_eq!(model.process_rows.len(), 0);
    assert!(seen(&model).contains("no process matches the filter"));
    press(&mut model, &[KeyCode::Esc]);
    assert_eq!(model.filter, "llama");
    press(&mut model, &[KeyCode::Esc]);
    assert_eq!(model.process_rows.len(), 4);
}

#[test]
fn pause_holds_everything_but_the_keys() {
    let mut model = model(80, 24, 2, 4);
    press(&mut model, &[KeyCode::Char('p')]);
    let before = seen(&model);
    assert!(before.contains("PAUSED"));
    hear(&mut model, invented::picture(1, 1));
    model.hear(News::Leaks(Ok(Vec::new())));
    assert_eq!(seen(&model), before);
    press(&mut model, &[KeyCode::Char('p')]);
    hear(&mut model, invented::picture(1, 1));
    assert_ne!(seen(&model), before);
}

#[test]
fn sorting_goes_through_the_columns_that_can_be_seen() {
    let mut model = model(80, 24, 2, 4);
    let sorted = |model: &Model| model.sort_titles()[model.process_sort.column];
    assert_eq!(sorted(&model), "USED");
    press(&mut model, &[KeyCode::Char('>')]);
    assert_eq!(sorted(&model), "BUFFERS");
    press(&mut model, &[KeyCode::Char('<'), KeyCode::Char('<')]);
    assert_eq!(sorted(&model), "DEV");
    press(&mut model, &[KeyCode::Char('s'), KeyCode::End, KeyCode::Enter]);
    assert_eq!(sorted(&model), "PROCESS");
    press(&mut model, &[KeyCode::Char('T')]);
    assert_eq!(model.process_rows[0].pid, 4003);
}

#[test]
fn memory_types_that_nobody_has_are_left_out() {
    let mut model = model(80, 24, 2, 4);
    let mut types = Vec::new();
    for _ in 0..3 {
        press(&mut model, &[KeyCode::Char('t')]);
        types.push(model.memory_type);
    }
    assert_eq!(types, ["l1", "trace", "dram"]);
}

#[test]
fn what_http_does_not_tell_is_said() {
    let mut model = model(100, 24, 2, 4);
    press(&mut model, &[KeyCode::Enter]);
    assert!(seen(&model).contains("asking for the buffers"));
    model.hear(News::Leaks(Err("no daemon answers at x:1".to_owned())));
    model.hear(News::Buffers { pid: 4000, told: Err("no daemon answers at x:1".to_owned()) });
    let told = seen(&model);
    assert!(
        told.contains("told over HTTP: no daemon answers at x:1") && told.contains("leaks: not known"),
        "{told}"
    );
    // An answer that comes late is about somebody else.
    model.hear(News::Buffers { pid: 4001, told: Ok(invented::buffers(3)) });
    assert!(seen(&model).contains("no daemon answers at x:1"));
    hear(&mut model, invented::picture(2, 0));
    assert!(seen(&model).contains("This process has ended"));
}

#[test]
fn the_mouse_chooses_opens_and_sorts() {
    let mut model = model(100, 24, 2, 4);
    let places = model.places().expect("room");
    let click = |model: &mut Model, column, row| {
        model.point(MouseEvent {
            kind: MouseEventKind::Down(MouseButton::Left),
            column,
            row,
            modifiers: KeyModifiers::NONE,
        });
    };
    click(&mut model, 3, places.heading.y);
    assert_eq!(model.sort_titles()[model.process_sort.column], "PID");
    click(&mut model, 3, places.table.y + 1);
    assert_eq!((model.processes.selected, &model.view), (1, &View::Overview));
    // A place without a row.
    click(&mut model, 3, places.table.y + 9);
    assert_eq!(model.processes.selected, 1);
    click(&mut model, 3, places.panel.y + 1);
    assert_eq!((model.panel, model.devices.selected), (Panel::Devices, 1));
    click(&mut model, 3, places.panel.y + 1);
    assert_eq!(model.view, View::Device(1));
    assert_eq!(press(&mut model, &[KeyCode::Char('m')]), Wish::Mouse(true));
}

#[test]
fn what_ends_it_ends_it_anywhere() {
    let control_c = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
    for before in ["", "?", "s", "/", "p"] {
        let mut model = model(80, 24, 1, 1);
        write(&mut model, before);
        assert_eq!(model.press(control_c), Wish::Quit, "after {before:?}");
    }
    let mut model = model(80, 24, 1, 1);
    assert_eq!(press(&mut model, &[KeyCode::Char('q')]), Wish::Quit);
    assert_eq!(model.press(KeyEvent::new(KeyCode::Char('z'), KeyModifiers::CONTROL)), Wish::Suspend);
}

/// A screen as a picture, in the colours of a dark terminal.
fn svg(buffer: &Buffer) -> String {
    let (width, height) =
        (f64::from(buffer.area.width) * CELL_WIDTH, f64::from(buffer.area.height) * CELL_HEIGHT);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{:.0}\" height=\"{:.0}\" font-family=\"monospace\" \
         font-size=\"14\">\n<rect width=\"100%\" height=\"100%\" fill=\"{BACKGROUND}\"/>\n",
        width + 2.0 * MARGIN,
        height + 2.0 * MARGIN
    );
    for y in 0..buffer.area.height {
        let top = MARGIN + f64::from(y) * CELL_HEIGHT;
        let left = |x: u16| MARGIN + f64::from(x) * CELL_WIDTH;
        let cells: Vec<_> = (0..buffer.area.width).map(|x| (x, &buffer[(x, y)])).collect();
        for run in cells.chunk_by(|(_, one), (_, next)| colours(one).1 == colours(next).1) {
            let back = colours(run[0].1).1;
            if back != BACKGROUND {
                svg.push_str(&format!(
                    "<rect x=\"{:.1}\" y=\"{top}\" width=\"{:.1}\" height=\"{CELL_HEIGHT}\" fill=\"{back}\"/>\n",
                    left(run[0].0),
                    run.len() as f64 * CELL_WIDTH
                ));
            }
        }
        for (x, cell) in cells.into_iter().filter(|(_, cell)| !cell.symbol().trim().is_empty()) {
            let symbol = cell.symbol().replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
            let weight = if cell.modifier.contains(Modifier::BOLD) { " font-weight=\"bold\"" } else { "" };
            let opacity = if cell.modifier.contains(Modifier::DIM) { " opacity=\"0.6\"" } else { "" };
            svg.push_str(&format!(
                "<text x=\"{:.1}\" y=\"{:.1}\" fill=\"{}\"{weight}{opacity}>{symbol}</text>\n",
                left(x),
                top + BASELINE,
                colours(cell).0
            ));
        }
    }
    svg + "</svg>\n"
}

/// Of a character of 14 pixels in the usual fonts, and around the screen.
const CELL_WIDTH: f64 = 8.4;
const CELL_HEIGHT: f64 = 18.0;
const BASELINE: f64 = 13.5;
const MARGIN: f64 = 8.0;
const BACKGROUND: &str = "#16181d";

/// The colour of a cell's character, and the one behind it.
fn colours(cell: &Cell) -> (&'static str, &'static str) {
    let hex = |color: Color, otherwise: &'static str| match color {
        Color::Black => BACKGROUND,
        Color::Red => "#e06c75",
        Color::Green => "#8fbf6f",
        Color::Yellow => "#e5c07b",
        Color::Cyan => "#56b6c2",
        _ => otherwise,
    };
    let (front, back) = (hex(cell.fg, "#d7dae0"), hex(cell.bg, BACKGROUND));
    if cell.modifier.contains(Modifier::REVERSED) { (back, front) } else { (front, back) }
}
