# On a fresh Debian, Ubuntu or macOS with Rust: `make demo`, `make test`. What is missing is installed, and said.

.PHONY: demo test lint build bench bench-quick deny

demo:
	@sh tests/setup.sh server
	cargo run --release -- demo

# Tests wait for servers more than they compute: two a core at a time.
test:
	@sh tests/setup.sh server newest-server versions pgbouncer lints print-versions
	@$(MAKE) --no-print-directory lint
	RUST_TEST_THREADS=$$((2 * $$(getconf _NPROCESSORS_ONLN))) cargo test --features failpoints

lint:
	cargo fmt --check
	cargo clippy --all-targets --all-features -- -D warnings

build:
	cargo build --release

# BENCH_ROWS is the table's size. The tables go to the terminal; JSON and a page with plots to target/bench.
bench:
	@sh tests/setup.sh server partman
	cargo bench --bench throughput

# The same with fewer rows and without the sweeps, in two minutes.
bench-quick:
	@sh tests/setup.sh server partman
	cargo bench --bench throughput -- --quick

# Not part of `test`: cargo-deny is no part of Rust, and its advisory database cannot be had offline.
deny:
	cargo deny check licenses bans sources
