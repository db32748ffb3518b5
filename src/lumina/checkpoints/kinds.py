"""Networks of the family, by the names that configurations give them."""

from lumina.backbones.flag_dit import FlagDiT
from lumina.backbones.next_dit import NextDiT
from lumina.backbones.recognizer import NextDiTClassifier
from lumina.backbones.transformer import FlowTransformer

KINDS: dict[str, type[FlowTransformer]] = {
    "FlagDiT": FlagDiT,
    "NextDiT": NextDiT,
    "LuminaNextDiT2DModel": NextDiT,
    "NextDiTClassifier": NextDiTClassifier,
}
