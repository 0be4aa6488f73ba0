// Upper-cases ASCII letters and leaves every other character as it is.
export function upper(text) {
  return text.replace(/[a-z]/g, (letter) => letter.toUpperCase());
}
