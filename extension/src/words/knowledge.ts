/** Steps and SoCs, fetched once and kept; anew when the server comes back. */

import type { Routes, Soc } from '../panel/routes';
import { flagOf, isSwitch, negativeOf, type Step } from './steps';

export class Knowledge {
  private _steps: Promise<Step[]> | null = null;
  private _socs: Promise<Soc[]> | null = null;
  private _switches: ReadonlySet<string> = new Set();

  constructor(private readonly _routes: Routes) {}

  /** The steps; a failure is not kept. */
  steps(): Promise<Step[]> {
    this._steps ??= this._routes.steps().then(
      steps => {
        this._switches = new Set(
          steps.flatMap(step =>
            step.options.filter(isSwitch).flatMap(option => [`${step.name} ${flagOf(option)}`, `${step.name} ${negativeOf(option)}`])
          )
        );
        return steps;
      },
      (error: unknown) => {
        this._steps = null;
        throw error;
      }
    );
    return this._steps;
  }

  socs(): Promise<Soc[]> {
    this._socs ??= this._routes.socs().then(
      answer => answer.socs,
      (error: unknown) => {
        this._socs = null;
        throw error;
      }
    );
    return this._socs;
  }

  /** Whether an option takes no value, as far as is known by now. */
  isSwitch(step: string, option: string): boolean {
    return option === '--help' || option === '-h' || this._switches.has(`${step} ${option}`);
  }

  /** Ask again at the next use. */
  forget(): void {
    this._steps = this._socs = null;
  }
}
