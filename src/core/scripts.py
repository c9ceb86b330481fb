"""Scripts whose words have no spaces between them: Han, kana, Thai, Lao, Khmer and Burmese."""

# As ranges of a character class.
UNSPACED = (
    "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"
    "\U00020000-\U0003ffff"
)
