"""The distillation losses in float64 numpy, written from the papers by one who had not seen the code.

Where a paper leaves a choice open, the docstring says which was made.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Whole = NDArray[Any]  # ids, labels, masks, places: whole numbers or bool
#: The scores of one side: of the positive (B), of the negatives (B, K), and which of those count (B, K).
Side = tuple[Array, Array, Whole]


def unit(rows: Array) -> Array:
    """Divide each row by its L2 norm; a zero row stays zero."""
    norms = np.linalg.norm(rows, axis=-1, keepdims=True)
    return np.asarray(rows / np.where(norms == 0, 1, norms))


def log_softmax(logits: Array) -> Array:
    """Log of the softmax over the last axis, with the largest taken out first."""
    shifted = logits - logits.max(-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(-1, keepdims=True)))


def mse(a: Array, b: Array) -> float:
    """Mean over ALL entries of the squared difference of two (B, h) arrays."""
    return float(((a - b) ** 2).mean())


def masked_mean(states: Array, mask: Whole) -> Array:
    """Mean over the real tokens (mask not 0) of (B, T, h); an input with none gives zeros."""
    real = (mask != 0)[..., None]
    return np.asarray((states * real).sum(1) / np.maximum(real.sum(1), 1))


def simcse(view1: Array, view2: Array, temperature: float) -> float:
    """DistilFace (arXiv 2401.12472), SimCSE loss: mean_i -log(exp(cos(a_i,b_i)/t) / sum_j exp(cos(a_i,b_j)/t))."""
    return -float(np.diagonal(log_softmax(unit(view1) @ unit(view2).T / temperature)).mean())


def distance(metric: str, student: Array, teacher: Array) -> float:
    """EmbedDistill (arXiv 2301.12005), Eq. 7 is `l2`; `mse` and `cosine` are its usual kin; means over the batch."""
    each = {
        "mse": ((student - teacher) ** 2).mean(1),
        "l2": np.linalg.norm(student - teacher, axis=1),
        "cosine": 1 - (unit(student) * unit(teacher)).sum(1),
    }
    return float(each[metric].mean())


def masked_lm(logits: Array, labels: Whole) -> float:
    """BERT (arXiv 1810.04805, 3.1): -log p of the token, averaged over the places whose label is not -100."""
    scored = labels != -100
    return -float(np.take_along_axis(log_softmax(logits[scored]), labels[scored][:, None], 1).mean())


def principal_components(x: Array, count: int) -> tuple[Array, Array, float]:
    """Mean, first components as rows, and the mean squared error of what they leave out (by numpy's SVD)."""
    mean = x.mean(0)
    _, values, directions = np.linalg.svd(x - mean, full_matrices=False)
    return mean, directions[:count], float((values[count:] ** 2).sum() / x.size)


def off_diagonal_cosines(vectors: Array) -> Array:
    """DistillCSE: (B, B-1) cosines of each anchor with the OTHER sentences, columns in order of j, j = i skipped."""
    others = ~np.eye(len(vectors), dtype=bool)
    return np.asarray((unit(vectors) @ unit(vectors).T)[others].reshape(len(vectors), -1))


def relation_loss(
    student: Array, teacher_cosines: Array, student_temperature: float, teacher_temperature: float
) -> float:
    """DistillCSE (arXiv 2310.13499), second term from given teacher cosines: mean_i -sum_j q_t(j|i) log p_s(j|i)."""
    log_p = log_softmax(off_diagonal_cosines(student) / student_temperature)
    q = np.exp(log_softmax(teacher_cosines / teacher_temperature))
    return -float((q * log_p).sum(1).mean())


def index_loss(student: Array, teacher: Array, temperature: float, earlier: Array | None = None) -> float:
    """The same, with each anchor of the student among the others of the teacher: -sum_j q(j|i) log p(t_j|s_i).

    `earlier` are more vectors of the teacher, of other texts.
    """
    total = 0.0
    for i in range(len(student)):
        others = [teacher[j] for j in range(len(student)) if j != i] + ([] if earlier is None else list(earlier))
        index = np.array([other / np.linalg.norm(other) for other in others])
        p, q = (log_softmax(index @ x[i] / np.linalg.norm(x[i]) / temperature) for x in (student, teacher))
        total -= float(np.exp(q) @ p)
    return total / len(student)


def groups(cosines: Array, p: float, slack: float = 1e-9) -> list[list[int]]:
    """DistillCSE (arXiv 2310.13499), Group-P: the positions of one anchor's cosines, cut into groups of mass p.

    Sort by cosine descending (ties keep their order), softmax of the raw cosines, cumulative sum C_m = w_1 + ... + w_m:
    entry m is in group k when C_m lies in (k p, (k+1) p], so k = ceil(C_m / p) - 1. An entry heavier than p jumps over
    groups: the empty ones are not listed. `slack`, in units of p, puts a sum that floating point moved off a boundary
    back on it. Highest cosines come first.
    """
    order = np.argsort(-cosines, kind="stable")
    numbers = np.ceil(np.cumsum(np.exp(log_softmax(cosines[order]))) / p - slack) - 1
    return [order[numbers == k].tolist() for k in np.unique(numbers)]


def summary(states: Sequence[Array], mask: Whole, layers: Sequence[int], weight: Array, bias: Array) -> Array:
    """CoDIR (arXiv 2009.14167), summary: normalise(W [mean-pool of each chosen layer] + b); states[0] = embeddings."""
    joined = np.concatenate([masked_mean(states[layer], mask) for layer in layers], axis=1)
    return unit(joined @ weight.T + bias)


def scores(anchor: Array, other: Array, other_bank: Array, places: Whole, negative: Whole, temperature: float) -> Side:
    """CoDIR: per input, exp(cos/t) of the positive and of the negatives of one side (unit vectors: cos = dot).

    Args:
        anchor: (B, d) unit vectors of one side.
        other: (B, d) unit vectors of the other side, same inputs: row i is the positive of anchor i.
        other_bank: (N, d) the other side's bank.
        places: (B, K) rows of the bank.
        negative: (B, K) bool, which of them count.
        temperature: t.
    """
    positive = np.exp((anchor * other).sum(1) / temperature)
    return positive, np.exp((anchor[:, None] * other_bank[places]).sum(2) / temperature), negative


def nce_side(side: Side, z: float, k_pn: float) -> float:
    """CoDIR (arXiv 2009.14167), one anchor's CRD term: -[log P+/(P+ + K Pn) + sum log K Pn/(P- + K Pn)], P = exp/Z."""
    positive, negatives, counts = side[0] / z, side[1] / z, side[2]
    return -float((np.log(positive / (positive + k_pn)) + (np.log(k_pn / (negatives + k_pn)) * counts).sum(1)).mean())


def infonce_side(side: Side) -> float:
    """CoDIR, `infonce`: -log softmax of the positive over 1+K; those not counting are left out."""
    positive, negatives, counts = side
    return -float(np.log(positive / (positive + (negatives * counts).sum(1))).mean())


def side_z(side: Side, n: int) -> float:
    """CoDIR, Z of the first batch for one anchor: n * the mean of exp(cos/t) over positives and negatives, pooled."""
    positive, negatives, counts = side
    return n * float(np.concatenate([positive, negatives[counts]]).mean())


def bank_update(row: Array, new: Array, momentum: float) -> Array:
    """CoDIR (arXiv 2009.14167), bank: one row <- normalise(momentum * row + (1 - momentum) * new)."""
    return unit(momentum * row + (1 - momentum) * new)


def kd(student_logits: Array, teacher_logits: Array, labels: Whole, beta: float, temperature: float) -> float:
    """CoDIR (arXiv 2009.14167), first two terms: (1-beta) CE + beta T^2 KL(softmax(z_t/T) || softmax(z_s/T)), means."""
    ours, theirs = (log_softmax(logits / temperature) for logits in (student_logits, teacher_logits))
    kl = float((np.exp(theirs) * (theirs - ours)).sum(1).mean())
    return (1 - beta) * masked_lm(student_logits, labels) + beta * temperature**2 * kl


def match(student_en: Array, student_xx: Array, wanted_en: Array, wanted_xx: Array, weight: float = 1.0) -> float:
    """Multi-stage (arXiv 2209.05869), stages 1 and 3: MSE(S(en), W(en)) + weight * MSE(S(xx), W(xx))."""
    return mse(student_en, wanted_en) + weight * mse(student_xx, wanted_xx)


def multilingual_contrastive(student_en: Array, student_xx: Array, teacher_en: Array, weight: float = 1.0) -> float:
    """Multi-stage (arXiv 2209.05869), stage 4: MSE(cos(T_en,T_en), cos(S_en,S_xx)) over B x B + weight * two MSEs."""
    relation = mse(unit(student_en) @ unit(student_xx).T, unit(teacher_en) @ unit(teacher_en).T)
    return relation + weight * match(student_en, student_xx, teacher_en, teacher_en)


def gradient(function: Callable[[Array], float], x: Array, eps: float = 1e-6) -> Array:
    """Central difference (f(x + eps e) - f(x - eps e)) / (2 eps) for every entry of x (no paper)."""
    base, out = np.array(x, dtype=np.float64), np.zeros(np.shape(x))
    for place in np.ndindex(*base.shape):
        ends = []
        for step in (eps, -eps):
            moved = base.copy()
            moved[place] += step
            ends.append(function(moved))
        out[place] = (ends[0] - ends[1]) / (2 * eps)
    return out
