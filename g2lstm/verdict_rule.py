"""The rule by which a measured effect is compared with the paper's, written before it is used."""

CONFIDENCE = 0.95
EQUIVALENCE = 0.90  # confidence of the interval that two one-sided tests at 5 % amount to
MARGIN = 0.5  # share of the paper's effect
POWER = 0.80
MOST_SEEDS = 1000
COLLAPSE = 2.0  # times the best perplexity, or part of the best BLEU
# What the paper's printed digits resolve; an effect of the paper this small is none.
RESOLUTION = {"nats a token": 0.002, "BLEU": 0.01, "share of gates": 0.0001}
UNITS = {"language-model": "nats a token", "translation": "BLEU"}

AS_PAPER, WEAKER, NONE, OPPOSITE, OPEN = "as in the paper", "weaker", "none", "opposite", "open"
NO_PAPER, NOT_MEASURED = "no paper value", "not measured"

RULE = f"""\
**The question** is whether a measured effect is the paper's effect. Five primary statistics are
judged on each corpus, once for G2-LSTM with noise probability p = 0.2 (the authors' README) and
once with p = 1 (the paper's equations as printed). Each is a difference of two models, with the
sign that makes the paper's effect positive:

1. accuracy: G2-LSTM's minus the LSTM's;
2. loss by compression, saved: the LSTM's loss by compression minus G2-LSTM's;
3. accuracy after compression: compressed G2-LSTM's minus the compressed LSTM's;
4. gates near 0 or 1: G2-LSTM's share minus the LSTM's, mean of input and forget gate;
5. accuracy against the sharpened sigmoid: G2-LSTM's minus the sharpened sigmoid's.

**Units.** Accuracy is minus the logarithm of the test perplexity (nats a token) for a language
model, and test BLEU for translation. Like is compared with like: perplexity with the cache pointer
where the preset has one, against the paper's with it, else without, against the paper's fine-tuned
models without it. Compression is that of the paper's table, in two families of equal weight:
rounding (round, round & clip) and low rank (SVD, SVD+). The paper compresses its language model
with the cache pointer only; that stands beside ours either way. A clip is void if clipping changes
the result of no run that is compared; then round & clip is left out, of our effect and of the
paper's.
A gate is near 0 or 1 within 0.1, on test text in evaluation mode; in translation that of the
decoder's first layer, the paper's place. The paper shows no gates of its language model, so all
layers of ours are compared with its translation model.

**Effect and interval.** theta is the difference of the two models' means over seeds. Seeds are
independent runs: a seed fixes initial weights and order of the data, yet models with the same seed
draw different noise and soon part. So Welch's interval decides, which allows each model its own
variance; the interval of the differences by seed (paired) is printed beside it and decides nothing.
theta_P is the paper's effect, from its own tables and histograms. Those are single runs: theta_P is
taken as exact. The margin is {MARGIN:g} theta_P.

**Verdict**, the first of these that is true:

- **{AS_PAPER}**: the {CONFIDENCE:.0%} interval lies beyond the margin on the paper's side of 0;
- **{WEAKER}**: the {CONFIDENCE:.0%} interval lies on the paper's side of 0 and below theta_P;
- **{NONE}**: the {EQUIVALENCE:.0%} interval lies within plus or minus the margin (two one-sided
  tests at 5 %);
- **{OPPOSITE}**: the {CONFIDENCE:.0%} interval lies on the other side of 0;
- **{OPEN}**: none of these. The number of seeds for each model that would decide it is printed.

The order matters twice. A proven effect on the paper's side is called weaker however small it is,
with its share of the paper's effect beside it. A proven effect on the other side that stays within
the margin is called none: there the paper has the benefit of the doubt.

**Holm's correction.** "Beyond the margin?" and "on which side of 0?" are each asked of the up to
five statistics of one corpus and p. Their p values (two-sided) are corrected by Holm's method, and
the answer is yes only if the corrected value is below {1 - CONFIDENCE:.0%}. Equivalence is not
corrected. The intervals printed are not corrected either; so an interval may exclude 0 where the
verdict is open.

**Number of seeds.** The least number a model, the same for both, that would give a verdict other
than open in at least about {POWER:.0%} of repetitions, if the means, the standard deviations and
Holm's factors are those seen. It is an estimate from few seeds, no promise; above {MOST_SEEDS} it
is not searched.

**Boundary cases.** A model with a single run has no spread: open, and no number of seeds can be
given. Without a value in the paper, or where the paper's effect is below what its printed digits
resolve ({RESOLUTION["nats a token"]:g} nats, {RESOLUTION["BLEU"]:g} BLEU,
{RESOLUTION["share of gates"]:g} of the gates), theta is given without verdict. A limit that lies
exactly on a boundary is not beyond it. What was not measured is listed as not measured.

**Collapsed runs.** A run has collapsed if, on the validation text, its perplexity is not finite or
more than {COLLAPSE:g} times the best of the runs compared on this corpus, or its BLEU below
1/{COLLAPSE:g} of the best. It is counted and named, and left out of every mean.

**Tuning seeds.** A seed on which the settings were chosen should not be one of the evaluation.
Where published runs use one, the verdict is on all seeds, this is said, and theta and interval
without that seed stand beside it.

**Secondary statistics** are reported with intervals and without verdict, uncorrected: the
generalisation gap (log-perplexity on test minus seen text), contrasts of gates between groups of
words (Cohen's d), G2-LSTM's share of gates near 0 or 1 minus the sharpened sigmoid's, loss by
compression against the sharpened sigmoid, and against the LSTM but for clipping, other temperatures
and noise probabilities against G2-LSTM's defaults.
"""
