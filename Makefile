# The two commands are `make run` and `make test`; both need git and Python 3.11 or newer.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
LINT_RULES := E,F,W,I,B,C4,UP,SIM,RUF,N,D1,PT,RET,TRY2
# N818: the names of the error tree say what is the case, not that it is an error.
LINT_IGNORE := E501,RUF001,RUF002,RUF003,RUF012,D104,D105,D107,N812,N818,PT017,PT018
LINT_IN_TESTS := tests/*:D102,tests/*:PT012,tests/*:B023
LINT_PATHS := relay_app tests benchmarks gunicorn.conf.py

# Not every machine has wheels of the other servers; there those tests are skipped.
TEST_EXTRAS := test$(CI:true=,servers)

MINUTES ?= 30
SECONDS ?= 60

export PIP_DISABLE_PIP_VERSION_CHECK = 1

.PHONY: run test lint install format bench demo autobahn fuzz abuse soak clean help

help: ## Say what there is to do
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/'

# Made again only when the dependencies change, so that a second start is quick.
$(VENV)/.run: setup.cfg pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo 'Python 3.11 or newer is needed: make PYTHON=python3.12 run'; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --editable .
	@touch $@

$(VENV)/.test: $(VENV)/.run
	$(BIN)/pip install --quiet --editable '.[$(TEST_EXTRAS)]'
	@touch $@

$(VENV)/.lint: $(VENV)/.test
	$(BIN)/pip install --quiet --editable '.[test,lint]'
	@touch $@

install: $(VENV)/.lint ## Make the environment with all that any of these needs

run: $(VENV)/.run ## Start the relay on loopback, ready for a binary and a phone
	@PYRYCODE_RELAY_LOG_FORMAT=$${PYRYCODE_RELAY_LOG_FORMAT-text} \
	  exec $(BIN)/gunicorn -c gunicorn.conf.py

demo: $(VENV)/.run ## Show a binary and two phones talking through a relay
	@$(BIN)/pyrycode-relay demo

test: $(VENV)/.test ## Run all tests, with branch coverage
	$(BIN)/python -m tests

lint: $(VENV)/.lint ## Check types, style and form
	$(BIN)/mypy
	$(BIN)/ruff check --select $(LINT_RULES) --ignore $(LINT_IGNORE) \
	  --per-file-ignores '$(LINT_IN_TESTS)' $(LINT_PATHS)
	$(BIN)/ruff format --check $(LINT_PATHS)

format: $(VENV)/.lint ## Mend form, and what can be mended of style
	$(BIN)/ruff check --fix --select $(LINT_RULES) --ignore $(LINT_IGNORE) \
	  --per-file-ignores '$(LINT_IN_TESTS)' $(LINT_PATHS)
	$(BIN)/ruff format $(LINT_PATHS)

bench: $(VENV)/.run ## Measure the relay on this machine
	$(BIN)/python -m benchmarks

autobahn: $(VENV)/.test ## Let the Autobahn test suite judge the WebSocket protocol, all cases
	$(BIN)/python -m tests.autobahn $(if $(SHORT),--short)

fuzz: $(VENV)/.test ## Fuzz what strangers can send, guided by coverage, for SECONDS
	$(BIN)/python -m tests.fuzz --seconds $(SECONDS)

abuse: $(VENV)/.test ## Attack the HTTP side of a relay with slowhttptest, wrk and our own
	$(BIN)/python -m tests.abuse $(if $(SHORT),--short)

soak: $(VENV)/.test ## Everything at once for MINUTES; nothing may be lost or left behind
	$(BIN)/python -m tests.soak --minutes $(MINUTES)

clean: ## Remove what was made
	rm -rf $(VENV) .venvs .autobahn build dist *.egg-info .coverage .coverage.* .pytest_cache .mypy_cache .ruff_cache
