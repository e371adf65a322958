// A screen that breaks says so; the rest of the page goes on.
import { Component, type ReactNode } from "react";
import { Problem } from "./Problem";

export class Failsafe extends Component<{ children: ReactNode }, { error: unknown }> {
  override state = { error: null as unknown };

  static getDerivedStateFromError(error: unknown) {
    return { error };
  }

  override render() {
    return this.state.error ? <Problem error={this.state.error} retry={() => this.setState({ error: null })} /> : this.props.children;
  }
}
