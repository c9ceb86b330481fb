// CSV as spreadsheets write it: fields between commas, quotes doubled within quotes.

/**
 * The rows of a text, at most `most` of them; what is not ended at the end of the text counts.
 * @param {string} text
 * @param {number} most
 * @returns {string[][]}
 */
export function parse(text, most = Infinity) {
  const rows = [];
  const field = /("(?:[^"]|"")*"?|[^,\r\n]*)(,|\r\n|\n|\r|$)/y;
  field.lastIndex = text.startsWith("\ufeff") ? 1 : 0;
  let row = [];
  while (rows.length < most && field.lastIndex < text.length) {
    const match = field.exec(text);
    if (!match) break; // letters after a closing quote: the server says where
    const quoted = match[1].startsWith('"');
    row.push(quoted ? match[1].slice(1).replace(/"$/, "").replaceAll('""', '"') : match[1]);
    if (match[2] !== ",") {
      if (row.length > 1 || row[0]) rows.push(row);
      row = [];
    }
  }
  if (row.length && rows.length < most) rows.push(row);
  return rows;
}
