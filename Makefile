# egm-probe: EGM memory regions of NVIDIA Grace hosts.
#
#   make demo      build, and show a recorded GB200
#   make check     every test and check
#   make install   as root; PREFIX and DESTDIR as usual

PREFIX  ?= /usr/local
DESTDIR ?=
CARGO   := ./tools/cargo
GB200   := tests/fixtures/gb200-full-gpu-list/host.tar.gz
PROGRAM := target/release/egm-probe

.PHONY: all build demo check golden install uninstall clean

all: build

build:
	./tools/install-deps build
	$(CARGO) build --release --locked

demo: build
	@printf '\n$$ egm-probe list\n'
	@$(PROGRAM) --from $(GB200) list
	@printf '\n$$ egm-probe show egm4\n'
	@$(PROGRAM) --from $(GB200) show egm4

# The tests come last: their own summary is the last line.
check:
	./tools/install-deps test
	./tools/lint
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --locked --no-deps --quiet
	$(CARGO) check --locked --quiet --lib --no-default-features
	$(CARGO) test --locked --quiet --doc
	$(CARGO) test --locked --lib --bins --tests

# Writes anew what the tests hold the program against; read the difference.
golden:
	UPDATE_FIXTURES=1 UPDATE_GOLDEN=1 $(CARGO) test --locked --quiet --test suite

install: build
	install -D -m 0755 $(PROGRAM) $(DESTDIR)$(PREFIX)/bin/egm-probe
	install -D -m 0644 man/egm-probe.1 $(DESTDIR)$(PREFIX)/share/man/man1/egm-probe.1
	install -D -m 0644 completions/egm-probe.bash \
		$(DESTDIR)$(PREFIX)/share/bash-completion/completions/egm-probe
	install -D -m 0644 completions/_egm-probe \
		$(DESTDIR)$(PREFIX)/share/zsh/site-functions/_egm-probe
	install -D -m 0644 completions/egm-probe.fish \
		$(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/egm-probe.fish

uninstall:
	rm -f $(DESTDIR)$(PREFIX)/bin/egm-probe \
		$(DESTDIR)$(PREFIX)/share/man/man1/egm-probe.1 \
		$(DESTDIR)$(PREFIX)/share/bash-completion/completions/egm-probe \
		$(DESTDIR)$(PREFIX)/share/zsh/site-functions/_egm-probe \
		$(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/egm-probe.fish

clean:
	$(CARGO) clean
