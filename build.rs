//! Compiles `bpf/*.bpf.c` with libbpf-cargo into `$OUT_DIR/<name>.bpf.o`, and the shared structs of `bpf/abi.bpf.c` into
//! Rust types (`$OUT_DIR/abi_oracle.rs`) against which `src/abi` is asserted at compile time.
//!
//! `CLANG` chooses the compiler; without it the newest `clang-N` on the path is taken, then `clang`.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, exit};

use libbpf_cargo::SkeletonBuilder;

/// The oldest clang that is known to compile programs the verifier accepts.
const OLDEST_CLANG: u32 = 14;

fn main() {
    println!("cargo::rerun-if-changed=bpf");
    println!("cargo::rerun-if-env-changed=CLANG");
    println!("cargo::rerun-if-env-changed=PODWIRE_BPF_WERROR");

    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR"));
    let clang = find_clang();
    let arch_include = arch_include();

    let mut sources = sources_in(&root.join("bpf"));
    // Programs that only tests and benches load; a packaged crate has none.
    for folder in ["tests/bpf", "benches/bpf"].map(|folder| root.join(folder)).iter().filter(|folder| folder.exists()) {
        println!("cargo::rerun-if-changed={}", folder.display());
        sources.extend(sources_in(folder));
    }
    for source in sources {
        let name =
            source.file_name().and_then(|n| n.to_str()).unwrap_or_default().trim_end_matches(".bpf.c").to_owned();
        let object = out.join(format!("{name}.bpf.o"));
        let mut builder = SkeletonBuilder::new();
        builder.source(&source).obj(&object).clang(&clang).clang_args(clang_args(&root, &arch_include));
        builder.build().unwrap_or_else(|error| compile_failed(&source, &format!("{error:#}")));
        if name == "abi" {
            builder
                .generate(out.join("abi_oracle.rs"))
                .unwrap_or_else(|error| compile_failed(&source, &format!("{error:#}")));
        }
    }
}

/// Every `*.bpf.c` of a folder, in the order of their names.
fn sources_in(folder: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = fs::read_dir(folder)
        .unwrap_or_else(|error| fail(&format!("read {}: {error}", folder.display())))
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| path.to_str().is_some_and(|path| path.ends_with(".bpf.c")))
        .collect();
    found.sort();
    found
}

fn clang_args(root: &Path, arch_include: &str) -> Vec<String> {
    let bpf = root.join("bpf");
    let mut args = vec![
        "-mcpu=v3".to_owned(),
        // Memory barriers depend on where the programs run.
        format!("-D__TARGET_ARCH_{}", target_arch()),
        "-Wall".to_owned(),
        "-Wextra".to_owned(),
        format!("-I{}", bpf.display()),
        "-isystem".to_owned(),
        bpf.join("vendor").display().to_string(),
        "-isystem".to_owned(),
        libbpf_include(),
        "-isystem".to_owned(),
        arch_include.to_owned(),
        // The object must not depend on where the checkout lies.
        format!("-fdebug-prefix-map={}=.", root.display()),
    ];
    if env::var_os("PODWIRE_BPF_WERROR").is_some_and(|value| value != "0") {
        args.push("-Werror".to_owned());
    }
    args
}

/// The target's name in libbpf's headers (`bpf/bpf_tracing.h`).
fn target_arch() -> String {
    let arch = env::var("CARGO_CFG_TARGET_ARCH").unwrap_or_else(|_| "x86_64".to_owned());
    match arch.as_str() {
        "x86_64" | "x86" => "x86".to_owned(),
        "aarch64" => "arm64".to_owned(),
        _ => arch,
    }
}

/// Where libbpf-sys put `bpf/bpf_helpers.h` and its neighbours: the headers of the libbpf that is linked.
fn libbpf_include() -> String {
    env::var("DEP_BPF_INCLUDE")
        .unwrap_or_else(|_| fail("libbpf-sys did not say where its headers are (DEP_BPF_INCLUDE)"))
}

/// Where Debian and its kin keep `asm/types.h`, which a compiler for the bpf target does not look for by itself.
fn arch_include() -> String {
    let arch = env::var("CARGO_CFG_TARGET_ARCH").unwrap_or_else(|_| "x86_64".to_owned());
    let multiarch = format!("/usr/include/{arch}-linux-gnu");
    let found =
        [multiarch.as_str(), "/usr/include"].into_iter().find(|dir| Path::new(dir).join("asm/types.h").exists());
    match found {
        Some(dir) => dir.to_owned(),
        None => fail(
            "asm/types.h not found: install the kernel's user-space headers (Debian: apt-get install linux-libc-dev)",
        ),
    }
}

fn find_clang() -> PathBuf {
    println!("cargo::rerun-if-env-changed=PATH");
    if let Some(clang) = env::var_os("CLANG") {
        let clang = PathBuf::from(clang);
        let wrong = match clang_version(&clang) {
            Some(version) if version >= OLDEST_CLANG => return clang,
            Some(version) => format!("is version {version}"),
            None => "does not run".to_owned(),
        };
        fail(&format!(
            "CLANG={} {wrong}: set CLANG to a clang of version {OLDEST_CLANG} or newer (Debian: apt-get install clang-19)",
            clang.display()
        ));
    }
    let numbered = (OLDEST_CLANG..=30).rev().map(|version| PathBuf::from(format!("clang-{version}")));
    for clang in numbered.chain([PathBuf::from("clang")]) {
        if clang_version(&clang).is_some_and(|version| version >= OLDEST_CLANG) {
            return clang;
        }
    }
    fail(&format!(
        "no clang {OLDEST_CLANG} or newer on PATH: install one (Debian: apt-get install clang-19) or set CLANG to its path"
    ))
}

/// The major version a compiler reports, or nothing when it does not run.
fn clang_version(clang: &Path) -> Option<u32> {
    let output = Command::new(clang).arg("--version").output().ok().filter(|output| output.status.success())?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let version = text.split("version ").nth(1)?;
    version.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

fn compile_failed(source: &Path, message: &str) -> ! {
    let hint = if message.contains("file not found") {
        "\na header is missing: install the kernel's user-space headers (Debian: apt-get install linux-libc-dev)"
    } else {
        ""
    };
    fail(&format!("compile {}:\n{message}{hint}", source.display()))
}

fn fail(message: &str) -> ! {
    for line in message.lines() {
        println!("cargo::error={line}");
    }
    exit(1)
}
