// Colours and shapes. Every pair of text and ground that is used has a contrast of 4.5 or more, in both schemes.
import { type CSSVariablesResolver, createTheme, type MantineColorsTuple } from "@mantine/core";

const ink: MantineColorsTuple = [
  "#eef4fc", "#d9e6f7", "#b3cdee", "#8fb6ea", "#79a8e6", "#3f78c9", "#2460b4", "#1d4f96", "#193f78", "#142f59",
];
const red: MantineColorsTuple = [
  "#fdf0ee", "#fadcd8", "#f4b8b1", "#f3a79e", "#f0948a", "#cf3b2d", "#b42318", "#951b12", "#78150d", "#5b0f09",
];
const dark: MantineColorsTuple = [
  "#e3e7ed", "#c8ced8", "#a9b1be", "#8b94a3", "#4b5462", "#363e4a", "#2a313b", "#1a1f26", "#14181e", "#0e1116",
];

export const theme = createTheme({
  colors: { ink, red, dark },
  primaryColor: "ink",
  primaryShade: 6,
  fontFamily: "system-ui, -apple-system, 'Segoe UI', Roboto, 'Noto Sans', sans-serif",
  fontFamilyMonospace: "ui-monospace, 'Cascadia Mono', 'DejaVu Sans Mono', Menlo, Consolas, monospace",
  defaultRadius: "sm",
  cursorType: "pointer",
  focusRing: "auto",
  respectReducedMotion: true,
  components: {
    Button: { defaultProps: { size: "sm" } },
  },
});

export const variables: CSSVariablesResolver = () => ({
  variables: {},
  light: {
    "--mantine-color-dimmed": "#545c68",
    "--mantine-color-error": "#b42318",
    "--mantine-color-placeholder": "#68707c",
    "--mantine-color-text": "#1b2027",
  },
  dark: {
    "--mantine-color-dimmed": "#a9b1be",
    "--mantine-color-error": "#f3a79e",
    "--mantine-color-placeholder": "#9099a7",
    "--mantine-color-text": "#dde2e9",
  },
});
