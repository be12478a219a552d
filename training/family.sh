#!/bin/sh
# Train the whole family, OUTPUT/minilm-10mb to OUTPUT/minilm-static, from one folder of text, in one command.
#
#   training/family.sh TEXT OUTPUT [settings of every training]
#   training/family.sh text models/family --dev stsb_dev.jsonl.gz --steps 4000
#
# The one of 2.5 MB starts from a static student, OUTPUT/minilm-2mb.table, which it trains before.
# A model that is there is not trained again, and a training that was stopped goes on with the same command.
# With SUITE=FOLDER each is also exported to its 4-bit file and scored on that suite (docs/evaluate.md), into
# OUTPUT/NAME-suite.json. On a machine with a GPU the trainings need sentence-transformers alone; export and score at home.
#
#   PYTHON   the interpreter; default .venv/bin/python, then python3
#   MODELS   which of them; default "10mb 5mb 2mb static"
#   TEACHER  its Hub id or folder, of any dtype; default all-MiniLM-L6-v2
#   SUITE    the suite's folder; default none
set -eu

if [ $# -lt 2 ] || [ ! -e "$1" ]; then
    echo "error: say where the text is, and where the models go: training/family.sh TEXT OUTPUT [settings]" >&2
    exit 2
fi
text=$1 output=$2
shift 2
root=$(cd "$(dirname "$0")/.." && pwd)
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
python=${PYTHON:-$root/.venv/bin/python}
[ -n "${PYTHON:-}" ] || [ -x "$python" ] || python=python3
teacher=${TEACHER:-sentence-transformers/all-MiniLM-L6-v2}

for model in ${MODELS:-10mb 5mb 2mb static}; do
    case $model in
    10mb) recipe="--config minilm --megabytes 10 --learning_rate 2e-4" ;;
    5mb) recipe="--config minilm --megabytes 5 --learning_rate 4e-4" ;;
    2mb) recipe="--config minilm-2mb" ;;
    static) recipe="--config minilm-static" ;;
    *) echo "error: MODELS: '$model' is none of 10mb, 5mb, 2mb, static" >&2 && exit 2 ;;
    esac
    folder=$output/minilm-$model
    if [ ! -e "$folder/run.json" ]; then
        resume=false
        [ ! -d "$folder.unfinished" ] || resume=true
        # The words of a recipe are to be split.
        # shellcheck disable=SC2086
        "$python" -m distilface train distill $recipe --teacher "$teacher" --data "$text" --held_out 300 \
            --output-dir "$folder" --resume "$resume" "$@"
    fi
    if [ -n "${SUITE:-}" ]; then
        [ -e "$folder/onnx/model_q4.onnx" ] || "$python" -m distilface export "$folder" --formats onnx q4
        "$python" -m distilface evaluate "$folder" --suite "$SUITE" --variants q4 --output "$folder-suite.json"
    fi
done
