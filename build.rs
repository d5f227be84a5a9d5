//! Tells the program which revision it was built from, where git can say, and puts the page into it.
//!
//! The page is made from ui/ by Node. Where that cannot be, the one that came with the sources is taken (ui/dist: the published crate carries
//! it), and where there is none, a page that says so. TTMEM_PAGE=required makes that an error: for what is handed to others.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs, io};

use flate2::Compression;
use flate2::write::GzEncoder;

/// The parts of the page: path, file, media type.
const PARTS: [(&str, &str, &str); 3] = [
    ("/", "index.html", "text/html; charset=utf-8"),
    ("/page.js", "page.js", "text/javascript; charset=utf-8"),
    ("/page.css", "page.css", "text/css; charset=utf-8"),
];
/// What stands at / when there is no page.
const UNBUILT: (&str, &str, &str) = ("/", "unbuilt.html", "text/html; charset=utf-8");
/// What the page is made from.
const SOURCES: [&str; 7] =
    ["package.json", "package-lock.json", ".npmrc", "tsconfig.json", "build.mjs", "index.html", "src"];
/// How npm gets what the lock file names: nothing that packages bring is run, and where there is no network, that is soon found out.
const INSTALL: [&str; 7] = [
    "ci",
    "--omit=dev",
    "--ignore-scripts",
    "--no-audit",
    "--no-fund",
    "--prefer-offline",
    "--fetch-retries=1",
];

fn main() -> io::Result<()> {
    println!("cargo::rerun-if-env-changed=TTMEM_REVISION");
    if Path::new(".git/HEAD").exists() {
        // HEAD names the branch; the log changes with every commit on it.
        println!("cargo::rerun-if-changed=.git/HEAD");
        println!("cargo::rerun-if-changed=.git/logs/HEAD");
    }
    let revision = env::var("TTMEM_REVISION").ok().or_else(revision).unwrap_or_else(|| "unknown".into());
    println!("cargo::rustc-env=TTMEM_REVISION={revision}");
    page()
}

fn revision() -> Option<String> {
    let output = Command::new("git").args(["rev-parse", "--short=12", "HEAD"]).output().ok()?;
    let revision = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| revision.trim().to_owned())
}

/// Writes page.rs, a table of the page's parts with their compressed content.
fn page() -> io::Result<()> {
    println!("cargo::rerun-if-env-changed=TTMEM_PAGE");
    for file in SOURCES.into_iter().chain(["dist", UNBUILT.1]) {
        let path = Path::new("ui").join(file);
        if path.exists() {
            println!("cargo::rerun-if-changed={}", path.display());
        }
    }
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or(io::ErrorKind::NotFound)?);
    let carried = Path::new("ui/dist");
    let built = if Path::new("ui/package.json").exists() { build(&out.join("ui")) } else { None };
    let (folder, parts) = match built {
        Some(folder) => (folder, &PARTS[..]),
        None if carried.exists() => (carried.to_owned(), &PARTS[..]),
        None => {
            if env::var("TTMEM_PAGE").is_ok_and(|wanted| wanted == "required") {
                return Err(io::Error::other(
                    "the page could not be built; it needs Node 18 or newer, and npm",
                ));
            }
            println!(
                "cargo::warning=without the page on /: it needs Node 18 or newer, npm, and once the network"
            );
            (PathBuf::from("ui"), &[UNBUILT][..])
        }
    };
    let mut table = String::from("const ASSETS: &[Asset] = &[\n");
    for (path, file, media_type) in parts {
        let mut compressor = GzEncoder::new(Vec::new(), Compression::best());
        compressor.write_all(&fs::read(folder.join(file))?)?;
        let compressed = out.join(format!("{file}.gz"));
        fs::write(&compressed, compressor.finish()?)?;
        let row =
            format!("path: {path:?}, media_type: {media_type:?}, content: include_bytes!({compressed:?})");
        let _ = writeln!(table, "    Asset {{ {row} }},");
    }
    table.push_str("];\n");
    fs::write(out.join("page.rs"), table)
}

/// Makes the page in a folder of the build's, as sources are not to be changed by building them.
fn build(folder: &Path) -> Option<PathBuf> {
    fs::create_dir_all(folder).ok()?;
    for file in SOURCES {
        copy(&Path::new("ui").join(file), &folder.join(file)).ok()?;
    }
    npm(folder, &INSTALL)?;
    npm(folder, &["run", "--silent", "build"])?;
    Some(folder.join("dist"))
}

fn npm(folder: &Path, arguments: &[&str]) -> Option<()> {
    let output = Command::new("npm").current_dir(folder).args(arguments).output().ok()?;
    if !output.status.success() {
        for line in String::from_utf8_lossy(&output.stderr).lines() {
            println!("cargo::warning=npm {}: {line}", arguments[0]);
        }
    }
    output.status.success().then_some(())
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    if !from.is_dir() {
        return fs::copy(from, to).map(drop);
    }
    // What was taken away there is not to be built here.
    let _ = fs::remove_dir_all(to);
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        copy(&entry.path(), &to.join(entry.file_name()))?;
    }
    Ok(())
}
